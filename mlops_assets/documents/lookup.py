"""Documents under a folder as plain YAML, before anything is loaded.

Belongs here: which documents there are and what they are called. Does not belong here: loading them and what
keeps one from it (``components/reading.py``).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Found:
    """One document: its file, the component that its type names, its attributes."""

    file: Path
    component: str
    attributes: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.attributes.get("name", ""))


def found_documents(defs: Path) -> Iterator[Found]:
    """Every document under ``defs``; of a file that is no YAML none, which `make check` tells of."""
    for file in sorted(defs.glob("**/defs.yaml")):
        try:
            documents = list(yaml.safe_load_all(file.read_text(encoding="utf-8")))
        except yaml.YAMLError:
            continue
        for one in documents:
            attributes = one.get("attributes") if isinstance(one, Mapping) else None
            if isinstance(attributes, Mapping):
                yield Found(file, str(one.get("type", "")).rpartition(".")[2], attributes)
