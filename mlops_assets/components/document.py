"""The base of every component: one YAML document, validated field by field, with file and line.

Belongs here: loading a document, naming where a field stands, importing the function a field names, which
assets a document makes and which of others it needs. Does not belong here: what the fields mean (each
component's declaration), the assets they become (its ``build_defs``), documents that are missing
(``use_cases.py``).

Dagster's ``Resolvable`` is not used: it accepts any text where a number belongs (templates), and
its errors carry no line for a wrong type. A plain pydantic document does, in ``dg check`` as well.
"""

import importlib
import traceback
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar, cast

import dagster as dg
from pydantic import BaseModel

from mlops_assets import environment
from mlops_assets.asset_keys import asset_key
from mlops_assets.asset_names import AssetName, Kind, misread
from mlops_assets.errors import DeclarationError, UnknownName
from mlops_assets.process_state import apart, process_restored

D = TypeVar("D", bound=BaseModel)


@dataclass(frozen=True)
class Need:
    """An asset of another document, and the field that names it.

    ``optional``: the document stands without it, unless the one that makes it is there and cannot be loaded.
    """

    asset: AssetName
    path: tuple[str | int, ...]
    optional: bool = False

    @property
    def key(self) -> dg.AssetKey:
        return asset_key(*self.asset)


class DeclaredComponent(dg.Component, Generic[D]):
    """A component whose attributes are one pydantic ``declaration``."""

    Declaration: ClassVar[type[BaseModel]]
    MAKES: ClassVar[Mapping[str, tuple[Kind, ...]]]
    """Kinds of the assets it makes, by the field that names them; first the one that only it may make."""
    NEEDS: ClassVar[Mapping[str, Kind]] = {}
    """Kind of the asset that a field names, by the field (dots lead into fields and lists)."""

    def __init__(self, declaration: D, context: dg.ComponentLoadContext) -> None:
        self.declaration = declaration
        self._positions = context.resolution_context.source_position_tree

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        return cls.Declaration

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:
        if attributes is None:
            raise DeclarationError(f"{cls.__name__} needs attributes", where=str(context.path))
        loaded = cls(cast(Any, attributes), context)
        loaded._refuse_misread_names()
        return loaded

    def _refuse_misread_names(self) -> None:
        for field, kinds in self.MAKES.items():
            for path, name in named(self.declaration.model_dump(), field):
                for kind in kinds:
                    if problem := misread(kind, name):
                        raise DeclarationError(f"{field}: {problem}", where=self.where(*path))

    @abstractmethod
    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions: ...

    def where(self, *path: str | int) -> str:
        """``file:line`` of a field under ``attributes``, or of its nearest ancestor; "" when unknown."""
        if self._positions is None:
            return ""
        position, _ = self._positions.lookup_closest_and_path(["attributes", *path], trace=None)
        return f"{shown(Path(position.filename))}:{position.start.line}"

    @classmethod
    def makes(cls, attributes: Mapping[str, Any]) -> list[AssetName]:
        """The assets that a document with these attributes makes, whether it can be loaded or not."""
        return [
            AssetName(kind, name)
            for field, kinds in cls.MAKES.items()
            for _, name in named(attributes, field)
            for kind in kinds
        ]

    @classmethod
    def needs(cls, attributes: Mapping[str, Any]) -> list[Need]:
        """What a document with these attributes needs of others, as far as it can be read."""
        return [
            Need(AssetName(kind, name), path)
            for field, kind in cls.NEEDS.items()
            for path, name in named(attributes, field)
        ]

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
        return f"{shown(Path(error.filename or '?'))}:{error.lineno}: {type(error).__name__}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    last = next((f for f in reversed(frames) if not f.filename.startswith("<frozen")), None)
    text = f"{type(error).__name__}: {error}"
    return f"{shown(Path(last.filename))}:{last.lineno}: {text}" if last else text


def named(value: Any, field: str) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Path and value of every text at ``field`` (``label.dataset``), also in lists."""
    head, _, rest = field.partition(".")
    if isinstance(value, list):
        for position, entry in enumerate(value):
            for path, name in named(entry, field):
                yield (position, *path), name
    elif isinstance(value, Mapping) and head in value:
        if rest:
            for path, name in named(value[head], rest):
                yield (head, *path), name
        elif isinstance(value[head], str):
            yield (head,), value[head]


def shown(path: Path) -> Path:
    """Relative to the working directory or the checkout: errors are read by people there."""
    for folder in (Path.cwd(), environment.PROJECT_ROOT):
        if path.resolve().is_relative_to(folder):
            return path.resolve().relative_to(folder)
    return path
