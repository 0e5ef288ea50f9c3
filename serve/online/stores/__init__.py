"""Stores of online features, one file each: where the rows per key lie, behind one base (``_base.py``)."""

from serve.families import Family
from serve.online.stores._base import OnlineStore, StoreLost, StoreMoved, StoreNotSetUp

__all__ = ["STORES", "OnlineStore", "StoreLost", "StoreMoved", "StoreNotSetUp"]

STORES: Family[OnlineStore] = Family("online store", __name__, OnlineStore)
