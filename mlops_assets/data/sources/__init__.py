"""What a dataset can be read from: one file per format.

A new format is one more file here: what YAML may say under ``source:``, and its reader (``_base.py``). A
format of files derives from ``FileSource``.
"""

from mlops_assets.data.sources._base import (
    WHOLE,
    Asked,
    LakeAccess,
    SourceDeclaration,
    SourceFormat,
    SourceReader,
)
from mlops_assets.data.sources._files import FileReader, FileSource
from mlops_assets.errors import UnknownName
from serve.families import Family

__all__ = [
    "SOURCES",
    "WHOLE",
    "Asked",
    "FileReader",
    "FileSource",
    "LakeAccess",
    "SourceDeclaration",
    "SourceFormat",
    "SourceReader",
]

SOURCES: Family[SourceDeclaration] = Family("source format", __name__, SourceDeclaration, unknown=UnknownName)
