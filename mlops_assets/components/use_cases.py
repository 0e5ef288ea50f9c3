"""Every document under ``defs/`` that can be loaded, and what is missing without the others, with reasons.

Belongs here: which documents stand, which fall with others, and how a missing one shows in the graph. Does
not belong here: reading files (``reading.py``), what a single document means (its component).

Guarantees. A document that cannot be loaded costs no document that does not need it. What needs it is missing
too, and says so, through any number of documents. An asset stands as its document declares it, or as a
placeholder that cannot be materialised.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace

import dagster as dg
from dagster._utils.warnings import suppress_dagster_warnings
from dagster.components.core.component_tree import ComponentTree
from dagster.components.core.defs_module import ComponentPath

from mlops_assets.asset_keys import read_key
from mlops_assets.asset_names import AssetName, Kind, asset_name
from mlops_assets.components.reading import ReadDocument, declaration, problem_of, read_documents
from mlops_assets.documents.missing import CHECK, MISSING, MissingDocument
from mlops_assets.documents.written import shortest
from mlops_assets.errors import DeclarationError, UnknownName

CALLED: Mapping[Kind, str] = {"features": "feature view"}
"""What a kind is called in messages, where that is not its own word."""

logger = logging.getLogger(__name__)


@suppress_dagster_warnings
def load_use_cases(
    tree: ComponentTree, *, beside: dg.Definitions | None = None, strict: bool = False
) -> dg.Definitions:
    """The definitions of every document that can be loaded, with placeholders for the others.

    ``beside`` is what they are completed by, e.g. resources, where that does not stand in the tree itself.
    Raises DeclarationError naming all problems when ``strict``, and for a document of the platform itself.
    """
    documents = read_documents(tree)
    missing: dict[ReadDocument, MissingDocument] = {}
    while True:
        present = [one for one in documents if one not in missing and not one.problem]
        fresh = tree_of(tree, present)
        found = _Round(fresh, beside or dg.Definitions(), documents, missing).problems()
        if not found:
            break
        missing |= found
    complete = _with_lineage(documents, missing)
    platform = [missing[one].problem for one in missing if one.of_platform]
    if platform or (strict and complete):
        raise DeclarationError("\n".join(platform or [one.problem for one in complete if not one.because]))
    for one in complete:
        logger.warning("%s is missing: %s", one.what, one.problem)
    parts = [
        _of_folder(fresh),
        *([beside] if beside else []),
        *([placeholders(complete)] if complete else []),
    ]
    return dg.Definitions.merge(*parts)


def component_of(tree: ComponentTree, document: ReadDocument) -> dg.Component:
    """The component of one document, loaded as if there were no other: none has to be right beside it."""
    return tree_of(tree, [document]).load_component(document.loc)


def _with_lineage(
    documents: Sequence[ReadDocument], missing: Mapping[ReadDocument, MissingDocument]
) -> list[MissingDocument]:
    """What is missing, causes before what falls with them, with those assets they name that there are."""
    there = {asset_name(*made) for one in documents for made in one.makes}
    complete = []
    for document, one in missing.items():
        upstream = dict.fromkeys(asset_name(*need.asset) for need in document.needs)
        complete.append(replace(one, upstream=tuple(key for key in upstream if key in there)))
    return sorted(complete, key=lambda one: (bool(one.because), one.where))


def placeholders(missing: Sequence[MissingDocument]) -> dg.Definitions:
    """Assets that stand in the graph for what is missing, each with a check that fails with the reason."""
    specs = [_placeholder(one, key) for one in missing for key in one.assets]
    return dg.Definitions(assets=specs, asset_checks=[_check(spec) for spec in specs])


def _of_folder(tree: ComponentTree) -> dg.Definitions:
    """What the tree's folder declares.

    Built from its root, Dagster would also describe the components of every installed package, for a page of
    its UI: that imports all of dagster-aws with boto3, 2 s of CPU in each process that loads definitions.
    """
    declared = tree.build_defs(ComponentPath.from_path(tree.defs_module_path))
    return dg.Definitions.merge(declared, dg.Definitions(component_tree=tree))


def tree_of(tree: ComponentTree, present: Sequence[ReadDocument]) -> ComponentTree:
    """The tree as Dagster would have it if these documents were all there are."""
    fresh = type(tree)(
        defs_module=tree.defs_module,
        project_root=tree.project_root,
        code_location_name=tree.code_location_name,
    )
    root = ComponentPath.from_path(fresh.defs_module_path)
    fresh.state_tracker.set_cache_data(root, component_decl=declaration(fresh, present))
    return fresh


class _Round:
    """One look at the documents that are not known to be missing yet."""

    def __init__(
        self,
        tree: ComponentTree,
        beside: dg.Definitions,
        documents: Sequence[ReadDocument],
        missing: Mapping[ReadDocument, MissingDocument],
    ) -> None:
        self._tree, self._beside, self._documents = tree, beside, documents
        self._known = dict(missing)
        self._found: dict[ReadDocument, MissingDocument] = {}

    def problems(self) -> dict[ReadDocument, MissingDocument]:
        """What is missing in addition; {} when the tree builds whole. Causes are told apart from what
        falls with them.
        """
        for look in (self._unreadable, self._repeated, self._unloadable, self._unbuildable, self._together):
            look()
            self._fall_with_others()
            if self._found:
                return self._found
        return {}

    @property
    def _present(self) -> list[ReadDocument]:
        return [one for one in self._documents if one not in self._known]

    def _lose(self, document: ReadDocument, problem: str, because: str = "") -> None:
        nameless = asset_name("document", _place(document))
        assets = [asset_name(*made) for made in document.makes]
        kept = {asset_name(*made) for one in self._present if one is not document for made in one.makes}
        self._found[document] = self._known[document] = MissingDocument(
            where=document.where,
            use_case=document.use_case,
            what=document.title,
            problem=problem,
            because=because,
            # What another document makes in its stead is not missing.
            assets=tuple(dict.fromkeys(word for word in assets if word not in kept)) or (nameless,),
        )

    def _unreadable(self) -> None:
        for one in self._present:
            if one.problem:
                self._lose(one, one.problem)

    def _repeated(self) -> None:
        """Assets that two documents make: the one in the folder of that name keeps them; without such a
        one, both lose what only one may make.
        """
        makers: dict[str, dict[ReadDocument, AssetName]] = {}
        for one in self._present:
            for made in one.makes:
                makers.setdefault(asset_name(*made), {})[one] = made
        for word, several in makers.items():
            if len(several) < 2:
                continue
            at_home = [one for one, made in several.items() if one.use_case == made.name]
            keeps = at_home[0] if len(at_home) == 1 else None
            if keeps is None and any(made != one.makes[0] for one, made in several.items()):
                continue  # What two such documents say together is refused by name when they are built.
            for one in several:
                if one is not keeps and one not in self._known:
                    others = ", ".join(other.where for other in several if other is not one)
                    rest = "; it keeps them, for its folder has that name" if keeps else ""
                    self._lose(one, f"{one.where}: {word} is declared by {others} too{rest}")

    def _unloadable(self) -> None:
        for one in self._present:
            try:
                self._tree.load_component(one.loc)
            except Exception as error:  # noqa: BLE001 (of whatever kind, it is this document's)
                self._lose(one, problem_of(error, one.where))

    def _unbuildable(self) -> None:
        failed: dict[ReadDocument, str] = {}
        for one in self._present:
            try:
                self._tree.build_defs(one.loc)
            except Exception as error:  # noqa: BLE001 (of whatever kind, it is this document's)
                failed[one] = problem_of(error, one.where)
        # One that needs another which failed may be whole: that shows when the other is gone.
        made_by_failed = {made for one in failed for made in one.makes}
        roots = [
            one
            for one in failed
            if not any(need.asset in made_by_failed for need in one.needs if not need.optional)
        ]
        for one in roots or failed:
            self._lose(one, failed[one])

    def _together(self) -> None:
        """Problems that only show when everything is put together."""
        try:
            dg.Definitions.merge(self._beside, _of_folder(self._tree)).resolve_asset_graph()
        except Exception:  # noqa: BLE001 (found again, by document)
            self._one_after_the_other()

    def _one_after_the_other(self) -> None:
        kept = [self._beside]
        ordered = sorted(self._present, key=lambda one: not one.of_platform)
        for one in ordered:
            made = self._tree.build_defs(one.loc)
            try:
                dg.Definitions.merge(*kept, made).resolve_asset_graph()
            except Exception as error:  # noqa: BLE001 (of whatever kind, this document brings it)
                self._lose(one, problem_of(error, one.where))
            else:
                kept.append(made)

    def _fall_with_others(self) -> None:
        """Documents that need what is missing, until no more fall."""
        while True:
            lost = {
                dg.AssetKey.from_user_string(key): one for one in self._known.values() for key in one.assets
            }
            falling = [
                (one, reason) for one in self._present if (reason := self._unmet(one, lost)) is not None
            ]
            if not falling:
                return
            for one, (problem, because) in falling:
                self._lose(one, problem, because)

    def _unmet(
        self, document: ReadDocument, lost: Mapping[dg.AssetKey, MissingDocument]
    ) -> tuple[str, str] | None:
        """Why a document cannot stand, and which other is to blame ("" for none); None when it can."""
        # A document whose kind cannot be read may have been meant.
        unknown = {
            one.attributes.get("name"): missing for one, missing in self._known.items() if not one.makes
        }
        for need in document.needs:
            culprit = lost.get(need.key)
            if culprit is None and need.asset not in self._made(need.asset.kind):
                culprit = unknown.get(need.asset.name)
            if culprit is not None:
                return self._blamed(document.line_of(need.path), need.key, culprit)
        for key in self._upstream(document):
            if key in lost:
                return self._blamed(document.where, key, lost[key])
        for need in document.needs:
            kind, name = need.asset
            known = self._made(kind)
            if not need.optional and need.asset not in known:
                wrong = UnknownName(CALLED.get(kind, kind), name, [made.name for made in known])
                step = _to_declare(need.asset, document.attributes.get("model"), there=bool(known))
                return f"{document.line_of(need.path)}: {wrong}{step}", ""
        return None

    def _blamed(self, where: str, key: dg.AssetKey, culprit: MissingDocument) -> tuple[str, str]:
        root = culprit.because or culprit.where
        first = culprit.problem.split("\n")[0]
        reason = first if not culprit.because else f"see {root}"
        return f"{where}: needs {key.to_user_string()}, which is missing ({reason})", root

    def _made(self, kind: Kind) -> set[AssetName]:
        """Assets of a kind that a present document makes, plain definitions included."""
        declared = {made for one in self._present for made in one.makes}
        plain = {read_key(key) for one in self._present if not one.makes for key in _keys(self._built(one))}
        return {made for made in declared | plain if made.kind == kind}

    def _upstream(self, document: ReadDocument) -> Iterable[dg.AssetKey]:
        """What plain definitions depend on; of documents their needs say it."""
        if document.makes:
            return []
        built = self._built(document)
        return [dep.asset_key for spec in _specs(built) for dep in spec.deps]

    def _built(self, document: ReadDocument) -> dg.Definitions:
        try:
            return self._tree.build_defs(document.loc)
        except Exception:  # noqa: BLE001 (its error is reported where documents are built)
            return dg.Definitions()


def _to_declare(asset: AssetName, model: object, *, there: bool) -> str:
    """The document that would make an asset, in its shortest form."""
    form = shortest(asset, model=model if isinstance(model, str) else "")
    step = "Name one of those, or declare it" if there else "Declare it"
    return f" {step}; the shortest form:\n{form}" if form else ""


def _specs(definitions: dg.Definitions) -> list[dg.AssetSpec]:
    return [
        spec
        for asset in definitions.assets or ()
        for spec in ([asset] if isinstance(asset, dg.AssetSpec) else getattr(asset, "specs", ()))
    ]


def _keys(definitions: dg.Definitions) -> list[dg.AssetKey]:
    return [spec.key for spec in _specs(definitions)]


def _place(document: ReadDocument) -> str:
    """Name of the placeholder of a document that does not tell its assets."""
    number = document.loc.instance_key
    stem = document.use_case if isinstance(number, int) else f"{document.use_case}_{document.file.stem}"
    return f"{stem}_{number + 1}" if isinstance(number, int) and number else stem


def _placeholder(missing: MissingDocument, key: str) -> dg.AssetSpec:
    first = key == missing.assets[0]
    return dg.AssetSpec(
        dg.AssetKey.from_user_string(key),
        # One of them keeps its place in the lineage.
        deps=[dg.AssetKey.from_user_string(other) for other in missing.upstream] if first else None,
        group_name=missing.use_case,
        kinds={"missing"},
        description=f"**Missing.** {missing.what} cannot be loaded.\n\n```\n{missing.problem}\n```\n\n"
        f"To get it back: {missing.command}.",
        metadata={MISSING: dg.MetadataValue.json({**asdict(missing), "assets": list(missing.assets)})},
    )


def _check(spec: dg.AssetSpec) -> dg.AssetChecksDefinition:
    problem = str(spec.metadata[MISSING].value["problem"])

    @dg.asset_check(asset=spec.key, name=CHECK, description="Its document can be loaded.")
    def check() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=False, description=problem)

    return check
