"""Model formats, one file each: the scorer, the memory it takes and what a GPU can do with it.

A new format is one more file here; ``_base.py`` says what it holds. A trainer names the format it writes.
"""

from serve.families import Family
from serve.formats._base import GpuSupport, Scorer

__all__ = ["FORMATS", "GpuSupport", "Scorer", "gpu_formats"]

FORMATS: Family[Scorer] = Family("model format", __name__, Scorer)


def gpu_formats() -> list[str]:
    """Names of the formats that a GPU can score."""
    return [name for name in FORMATS if FORMATS[name].gpu is not None]
