"""File formats that a dataset can be read from: one file per format.

A new format is one more file here: what YAML may say under ``source:``, and its reader (``_base.py``).
"""

from mlops_assets.data.sources._base import SourceDeclaration, SourceFormat
from mlops_assets.errors import UnknownName
from serve.families import Family

__all__ = ["SOURCES", "SourceDeclaration", "SourceFormat"]

SOURCES: Family[SourceDeclaration] = Family("source format", __name__, SourceDeclaration, unknown=UnknownName)
