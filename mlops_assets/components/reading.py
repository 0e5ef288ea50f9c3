"""Documents as they stand in files: each read by itself, with file and line.

Belongs here: finding the files under ``defs/``, splitting a YAML file into its documents, what keeps one of
them from being read. Does not belong here: whether what was read can be built (``use_cases.py``).

Dagster reads a whole folder or nothing: one comma too few in one file, and nothing is declared.
"""

import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from dagster.components.core.component_tree import ComponentTree
from dagster.components.core.context import ComponentDeclLoadContext
from dagster.components.core.decl import (
    ComponentDecl,
    DefsFolderDecl,
    YamlFileDecl,
    build_component_decl_from_python_file,
    build_component_decl_from_yaml_document,
)
from dagster.components.core.defs_module import (
    EXPLICITLY_IGNORED_GLOB_PATTERNS,
    ComponentPath,
    find_defs_or_component_yaml,
)
from dagster_shared.yaml_utils import parse_yamls_with_source_position
from dagster_shared.yaml_utils.source_position import ValueAndSourcePositionTree
from pydantic import ValidationError

import mlops_assets.components
from mlops_assets.asset_names import AssetName
from mlops_assets.components.document import DeclaredComponent, Need, shown
from mlops_assets.errors import DeclarationError, MlopsError, UnknownName
from mlops_assets.process_state import process_restored

COMPONENTS = "mlops_assets.components"
PLATFORM = "platform"
"""The folder that belongs to no use case: without it nothing works, so nothing there may be missing."""

_SEPARATOR = re.compile(r"---(\s|$)")
_GLIMPSE = re.compile(r" {0,2}([a-z_]+): *[\"']?([A-Za-z0-9_.]+)[\"']? *(?:#.*)?$")
"""A simple field of a document, or of its attributes: deeper ones name other things."""


@dataclass(frozen=True, eq=False)
class ReadDocument:
    """One YAML document, or one Python file of plain definitions.

    ``attributes`` are what could be read of it; ``problem`` says why it cannot be read, "" when it can.
    """

    file: Path
    line: int
    loc: ComponentPath
    component: type[dg.Component] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    source: ValueAndSourcePositionTree | None = None
    problem: str = ""

    @property
    def where(self) -> str:
        return f"{shown(self.file)}:{self.line}"

    @property
    def use_case(self) -> str:
        """The folder that it stands in; also the group of its assets."""
        return self.file.parent.name

    @property
    def of_platform(self) -> bool:
        return self.use_case == PLATFORM

    @property
    def makes(self) -> list[AssetName]:
        """The assets it makes, as far as it says so itself: [] for plain definitions."""
        return self._declared.makes(self.attributes) if self._declared else []

    @property
    def needs(self) -> list[Need]:
        return self._declared.needs(self.attributes) if self._declared else []

    @property
    def title(self) -> str:
        """Its kind and name: ``ModelComponent flights``."""
        kind = self.component.__name__ if self.component else "document"
        name = self.attributes.get("name") or self.attributes.get("model")
        return f"{kind} {name}" if isinstance(name, str) else kind

    def line_of(self, path: Sequence[str | int]) -> str:
        """``file:line`` of an attribute, or of its nearest ancestor."""
        if self.source is None:
            return self.where
        found, _ = self.source.source_position_tree.lookup_closest_and_path(["attributes", *path], None)
        return f"{shown(self.file)}:{found.start.line}"

    @property
    def _declared(self) -> "type[DeclaredComponent[Any]] | None":
        known = self.component is not None and issubclass(self.component, DeclaredComponent)
        return self.component if known else None  # type: ignore[return-value]


def read_documents(tree: ComponentTree) -> list[ReadDocument]:
    """Every document under the tree's defs folder, in the order of the files, unreadable ones included."""
    return list(_below(_context(tree, tree.defs_module_path)))


def declaration(tree: ComponentTree, documents: Sequence[ReadDocument]) -> ComponentDecl[Any]:
    """What Dagster builds from: the folder, with these documents alone."""
    return _declared_folder(_context(tree, tree.defs_module_path), documents)


def problem_of(error: BaseException, where: str) -> str:
    """An error of reading, loading or building one document, each of its problems with file and line."""
    # Dagster wraps the error of a document in one with a drawing of all documents.
    while type(error).__name__ == "ComponentTreeException" and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, ValidationError):
        return "\n".join(_invalid(one, where) for one in error.errors())
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        at = f"{shown(Path(mark.name))}:{mark.line + 1}" if mark else where
        return f"{at}: {', '.join(part for part in (error.context, error.problem) if part)}"
    if isinstance(error, DeclarationError) and error.where:
        return str(error)
    if isinstance(error, MlopsError):
        return f"{where}: {error}"
    return f"{where}: {type(error).__name__}: {str(error).strip()}"


def _invalid(error: Any, where: str) -> str:
    """The problem of a field that pydantic refuses; Dagster puts its position behind its path."""
    path, _, place = str(error["loc"][0] if error["loc"] else "").partition(" at ")
    file, _, line = place.rpartition(":")
    at = f"{shown(Path(file))}:{line}" if file else where
    name = path.removeprefix("attributes").removeprefix(".")
    said = error["msg"].removeprefix("Value error, ")
    return f"{at}: {name}: {said}" if name else f"{at}: {said}"


def _context(tree: ComponentTree, path: Path) -> ComponentDeclLoadContext:
    return tree.decl_load_context.for_component_loc(ComponentPath.from_path(path))


def _children(context: ComponentDeclLoadContext) -> Iterator[ComponentDeclLoadContext]:
    for path in sorted(context.path.iterdir()):
        relative = path.relative_to(context.path)
        if not any(relative.match(pattern) for pattern in EXPLICITLY_IGNORED_GLOB_PATTERNS):
            yield context.for_component_loc(ComponentPath.from_path(path))


def _below(context: ComponentDeclLoadContext) -> Iterator[ReadDocument]:
    file = find_defs_or_component_yaml(context.path)
    if file is not None:
        yield from _yaml_file(context, file)
    elif context.path.suffix == ".py":
        yield _python_file(context)
    elif context.path.is_dir():
        for child in _children(context):
            yield from _below(child)


def _python_file(context: ComponentDeclLoadContext) -> ReadDocument:
    loc = ComponentPath.from_path(context.path)
    try:
        with process_restored():
            build_component_decl_from_python_file(context)
    # Whatever its author's code raises keeps this file from being read, and no other.
    except (Exception, SystemExit) as error:  # noqa: BLE001
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(context.path)]
        line = (error.lineno if isinstance(error, SyntaxError) else None) or (
            frames[-1].lineno if frames else 1
        )
        where = f"{shown(context.path)}:{line}"
        return ReadDocument(context.path, line or 1, loc, problem=problem_of(error, where))
    return ReadDocument(context.path, 1, loc)


def _yaml_file(context: ComponentDeclLoadContext, file: Path) -> Iterator[ReadDocument]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problem = f"{shown(file)}:1: it cannot be read: {error}"
        yield ReadDocument(file, 1, ComponentPath.from_path(context.path, 0), problem=problem)
        return
    number = 0
    for line, part in _parts(text):
        loc = ComponentPath.from_path(context.path, number)
        try:
            sources = parse_yamls_with_source_position("\n" * (line - 1) + part, str(file))
            _refuse_repeated_keys("\n" * (line - 1) + part, file)
        except (yaml.YAMLError, DeclarationError) as error:
            begins = line + _blank_lines(part)
            problem = problem_of(error, f"{shown(file)}:{begins}")
            kind, attributes = _glimpse(part)
            yield ReadDocument(file, begins, loc, kind, attributes, problem=problem)
            number += 1
            continue
        for source in sources:
            yield _document(context, file, number, source)
            number += 1
    if number == 0:
        loc = ComponentPath.from_path(context.path, 0)
        yield ReadDocument(file, 1, loc, problem=f"{shown(file)}:1: it holds no document")


def _parts(text: str) -> Iterator[tuple[int, str]]:
    """First line and text of every document: in YAML, ``---`` at the start of a line begins one, always."""
    lines = text.split("\n")
    starts = [0, *(number for number, line in enumerate(lines) if number and _SEPARATOR.match(line))]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        yield start + 1, "\n".join(lines[start:end])


def _blank_lines(part: str) -> int:
    """Lines before the first that says something."""
    lines = part.split("\n")
    said = (number for number, line in enumerate(lines) if line.strip() not in ("", "---") and line[0] != "#")
    return next(said, 0)


def _document(
    context: ComponentDeclLoadContext, file: Path, number: int, source: ValueAndSourcePositionTree
) -> ReadDocument:
    loc = ComponentPath.from_path(context.path, number)
    line = source.source_position_tree.position.start.line
    value = source.value if isinstance(source.value, Mapping) else {}
    attributes = value.get("attributes")
    known = attributes if isinstance(attributes, Mapping) else {}
    try:
        declared = build_component_decl_from_yaml_document(
            context=context.for_component_loc(loc), source_tree=source, path=loc
        )
        return ReadDocument(file, line, loc, declared.component_type, known, source)
    except Exception as error:  # noqa: BLE001 (of whatever kind, it is this document's)
        where = f"{shown(file)}:{line}"
        problem = _unknown_type(value.get("type"), source) or problem_of(error, where)
        return ReadDocument(file, line, loc, _component(value.get("type")), known, source, problem)


def _unknown_type(name: object, source: ValueAndSourcePositionTree) -> str:
    """The problem of a type that lies where the platform's are and is none of them; "" for any other."""
    if not isinstance(name, str) or not name.startswith(f"{COMPONENTS}.") or _component(name) is not None:
        return ""
    position, _ = source.source_position_tree.lookup_closest_and_path(["type"], None)
    known = [f"{COMPONENTS}.{one}" for one in mlops_assets.components.__all__]
    return f"{shown(Path(position.filename))}:{position.start.line}: {UnknownName('type', name, known)}"


def _component(name: object) -> type[dg.Component] | None:
    """The platform's own component of that name."""
    if not isinstance(name, str) or not name.startswith(f"{COMPONENTS}."):
        return None
    found = getattr(mlops_assets.components, name.rpartition(".")[2], None)
    return found if isinstance(found, type) and issubclass(found, dg.Component) else None


def _glimpse(text: str) -> tuple[type[dg.Component] | None, dict[str, str]]:
    """Component and simple fields of a document that is no YAML, for saying what is missing with it."""
    found: dict[str, str] = {}
    for line in text.split("\n"):
        match = _GLIMPSE.match(line)
        if match:
            found.setdefault(match[1], match[2])
    return _component(found.pop("type", None)), found


def _refuse_repeated_keys(text: str, file: Path) -> None:
    """YAML wants every key once; its reader takes the last and says nothing."""
    for root in yaml.compose_all(text, Loader=yaml.SafeLoader):
        nodes = [root] if root is not None else []
        while nodes:
            node = nodes.pop()
            if isinstance(node, yaml.SequenceNode):
                nodes += node.value
            elif isinstance(node, yaml.MappingNode):
                lines: dict[str, int] = {}
                for key, value in node.value:
                    line = key.start_mark.line + 1
                    if isinstance(key, yaml.ScalarNode) and key.value in lines and key.value != "<<":
                        raise DeclarationError(
                            f"{key.value!r} stands here and in line {lines[key.value]}; write it once",
                            where=f"{shown(file)}:{line}",
                        )
                    lines[getattr(key, "value", "")] = line
                    nodes.append(value)


def _declared_folder(
    context: ComponentDeclLoadContext, documents: Sequence[ReadDocument]
) -> "DefsFolderDecl":
    children: dict[Path, ComponentDecl[Any]] = {}
    for child in _children(context):
        inside = [one for one in documents if one.loc.file_path.is_relative_to(child.path)]
        if not inside:
            continue
        if child.path.suffix == ".py":
            children[child.path] = build_component_decl_from_python_file(child)
        elif find_defs_or_component_yaml(child.path) is not None:
            children[child.path] = _declared_file(child, inside)
        else:
            children[child.path] = _declared_folder(child, inside)
    return DefsFolderDecl(
        context=context,
        loc=ComponentPath.from_path(context.path),
        children=children,
        source_tree=None,
        component_file_model=None,
    )


def _declared_file(context: ComponentDeclLoadContext, documents: Sequence[ReadDocument]) -> YamlFileDecl:
    sources = [(one.loc, one.source) for one in documents if one.source is not None]
    decls: list[Any] = [
        build_component_decl_from_yaml_document(
            context=context.for_component_loc(loc), source_tree=source, path=loc
        )
        for loc, source in sources
    ]
    return YamlFileDecl(
        context=context,
        loc=ComponentPath.from_path(context.path),
        decls=decls,
        source_positions=[source.source_position_tree.position for _, source in sources],
    )
