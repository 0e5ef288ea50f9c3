"""The base of every component: one YAML document, validated field by field, with file and line.

Belongs here: loading a document, naming where a field stands, importing the function a field names,
recording which other documents it refers to. Does not belong here: what the fields mean (each
component's declaration) or the assets they become (its ``build_defs``).

Dagster's ``Resolvable`` is not used: it accepts any text where a number belongs (templates), and
its errors carry no line for a wrong type. A plain pydantic document does, in ``dg check`` as well.
"""

import importlib
import traceback
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar, cast

import dagster as dg
from pydantic import BaseModel, ConfigDict

from mlops_assets.components.process_state import apart, process_restored
from mlops_assets.errors import DeclarationError, UnknownName

REFERENCES = "mlops/references"
"""Metadata key of an asset spec: {asset key: file:line} of every document it refers to."""


class Declaration(BaseModel):
    """What stands under ``attributes:``. Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


D = TypeVar("D", bound=BaseModel)


class DeclaredComponent(dg.Component, Generic[D]):
    """A component whose attributes are one pydantic ``declaration``."""

    Declaration: ClassVar[type[BaseModel]]

    def __init__(self, declaration: D, context: dg.ComponentLoadContext) -> None:
        self.declaration = declaration
        self._positions = context.resolution_context.source_position_tree
        self._references: dict[str, str] = {}

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        return cls.Declaration

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:
        if attributes is None:
            raise DeclarationError(f"{cls.__name__} needs attributes", where=str(context.path))
        return cls(cast(Any, attributes), context)

    @abstractmethod
    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions: ...

    def where(self, *path: str | int) -> str:
        """``file:line`` of a field under ``attributes``, or of its nearest ancestor; "" when unknown."""
        if self._positions is None:
            return ""
        position, _ = self._positions.lookup_closest_and_path(["attributes", *path], trace=None)
        return f"{_shown(Path(position.filename))}:{position.start.line}"

    def refer(self, kind: str, name: str, *path: str | int) -> dg.AssetKey:
        """Key ``kind/name`` of another document's asset, remembered with where it was named.

        ``definitions.py`` fails loading when no document declares it.
        """
        key = dg.AssetKey([kind, name])
        self._references[key.to_user_string()] = self.where(*path)
        return key

    def reference_metadata(self) -> dict[str, Any]:
        """Goes into the metadata of the component's first asset spec."""
        return {REFERENCES: dict(self._references)}

    def function(self, dotted: str, *path: str | int) -> Callable[..., Any]:
        """The function behind an absolute dotted path; DeclarationError says what the module holds.

        It leaves the process as it found it, and so does importing it.
        """
        module_name, _, name = dotted.rpartition(".")
        where = self.where(*path)
        try:
            with process_restored():
                module = importlib.import_module(module_name)
        # The module is not the platform's: whatever it raises is a mistake in this use case.
        except (Exception, SystemExit) as error:
            raise DeclarationError(f"cannot import {dotted!r}: {_raised(error)}", where=where) from error
        found = getattr(module, name, None)
        if not callable(found):
            functions = [
                key for key, value in vars(module).items() if callable(value) and not key.startswith("_")
            ]
            raise DeclarationError(
                str(UnknownName(f"function in {module_name}", name, functions)), where=where
            )
        return apart(cast(Callable[..., Any], found))


def _raised(error: BaseException) -> str:
    """An error of a foreign module with the line it came from; a missing module says itself which it is."""
    if isinstance(error, SyntaxError):
        return f"{_shown(Path(error.filename or '?'))}:{error.lineno}: {type(error).__name__}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    last = next((f for f in reversed(frames) if not f.filename.startswith("<frozen")), None)
    told = f"{type(error).__name__}: {error}"
    return f"{_shown(Path(last.filename))}:{last.lineno}: {told}" if last else told


def _shown(path: Path) -> Path:
    """Relative to the working directory where possible: errors are read by people in a checkout."""
    try:
        return path.resolve().relative_to(Path.cwd())
    except ValueError:
        return path


def check_references(loaded: dg.Definitions) -> None:
    """Raises DeclarationError, with file and line, for every reference to an asset nobody declares.

    Dagster would turn a mistyped upstream into an external asset and load without a word.
    """
    graph = loaded.resolve_asset_graph()
    declared = {key.to_user_string() for key in graph.materializable_asset_keys}
    problems: dict[str, str] = {}
    for node in graph.asset_nodes:
        for name, where in (node.metadata.get(REFERENCES) or {}).items():
            if name not in declared:
                kind = name.split("/")[0]
                known = [key for key in declared if key.startswith(f"{kind}/")]
                problems[str(UnknownName("upstream asset", name, known))] = where
    if problems:
        first, where = next(iter(problems.items()))
        others = [f"{place}: {problem}" for problem, place in list(problems.items())[1:]]
        raise DeclarationError("\n".join([first, *others]), where=where)
