"""Formats that the values of records are read in: one file per format.

A new format is one more file here: what YAML may say under ``value:``, and how bytes are read (``_base.py``).
"""

from mlops_assets.errors import UnknownName
from mlops_assets.streams.formats._base import Decode, RecordFormat, Registered, Undecodable
from serve.families import Family

__all__ = ["RECORD_FORMATS", "Decode", "RecordFormat", "Registered", "Undecodable"]

RECORD_FORMATS: Family[RecordFormat] = Family("record format", __name__, RecordFormat, unknown=UnknownName)
