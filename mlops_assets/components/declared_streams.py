"""The streams that documents declare, for processes that need no other document.

Belongs here: finding them by reading what stands under ``defs/``. Does not belong here: what a document
becomes (``stream.py``), another document that asks for one (``loaded_documents.py``).
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import dagster as dg

from mlops_assets.assets.ingest import DeclaredStream
from mlops_assets.components.reading import ReadDocument, read_documents
from mlops_assets.components.stream import StreamComponent
from mlops_assets.components.use_cases import component_of
from mlops_assets.errors import DeclarationError, UnknownName

PACKAGE = Path(__file__).parent.parent
"""The folder that ``defs/`` lies in."""


def project() -> "dg.ComponentTree":
    """The documents of this project as they stand now."""
    return dg.ComponentTree.for_project(PACKAGE)


def files() -> list[tuple[str, int]]:
    """Every YAML file of documents, and when it was changed last: the same while nothing changed."""
    return sorted((str(file), file.stat().st_mtime_ns) for file in PACKAGE.glob("defs/**/*.yaml"))


def declared_streams(tree: "dg.ComponentTree | None" = None) -> Mapping[str, DeclaredStream]:
    """Every stream that can be loaded, by its name."""
    tree = tree or project()
    found = {}
    for name, document in _documents(tree).items():
        if not document.problem:
            # Of whatever kind, it is this document's: the graph and `mlops status` say what is missing.
            with suppress(Exception):
                found[name] = _loaded(tree, document)
    return found


def declared_stream(tree: "dg.ComponentTree", name: str) -> tuple[DeclaredStream, str]:
    """The stream of that name, and where it is declared. Other documents are not loaded, so none of them has
    to be right. UnknownName, or DeclarationError with what is wrong with it.
    """
    found = _documents(tree)
    if name not in found:
        raise UnknownName("stream", name, found, next_step="Declare a StreamComponent (docs/streams.md).")
    document = found[name]
    if document.problem:
        raise DeclarationError(document.problem)
    return _loaded(tree, document), document.where


def _documents(tree: "dg.ComponentTree") -> dict[str, ReadDocument]:
    return {
        str(one.attributes.get("name")): one
        for one in read_documents(tree)
        if one.component is StreamComponent
    }


def _loaded(tree: "dg.ComponentTree", document: ReadDocument) -> DeclaredStream:
    component = component_of(tree, document)
    assert isinstance(component, StreamComponent)
    return component.source(document.file.parent)
