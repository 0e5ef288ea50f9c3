"""File formats a dataset can be read from: one file per format, one base.

A new format is one more file here and one entry in ``FORMATS``.
"""

from mlops_assets.data.sources._base import SourceFormat
from mlops_assets.data.sources.csv_format import CsvFormat, Missing
from mlops_assets.data.sources.parquet_format import ParquetFormat

FORMATS: dict[str, type[SourceFormat]] = {"csv": CsvFormat, "parquet": ParquetFormat}

__all__ = ["FORMATS", "CsvFormat", "Missing", "ParquetFormat", "SourceFormat"]
