"""A use case from one file: the folder with its documents, and what was guessed, line by line.

Belongs here: checking what a person asks for, writing the folder, telling what was guessed. Does not belong
here: the guesses (``data/inference.py``), the words of a document (``documents/written.py``), asking at the
prompt and printing (``cli.py``).
"""

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from mlops_assets import environment
from mlops_assets.asset_names import KINDS, misread
from mlops_assets.data.guess import Guess
from mlops_assets.data.inference import InferredRows, Question, infer_question, infer_rows, likely_label
from mlops_assets.data.locations import read_bytes
from mlops_assets.data.validation import REASONS
from mlops_assets.documents import written
from mlops_assets.documents.lookup import found_documents
from mlops_assets.errors import MlopsError
from mlops_assets.training.training_set import LABEL, SPLIT
from serve.schema import Task

DEFS = environment.PROJECT_ROOT / "mlops_assets" / "defs"
MODULE = "mlops_assets.defs"
LARGEST_COPIED = 50 * 2**20
"""A larger file stays where it is: the folder is meant to be kept in version control."""


@dataclass(frozen=True)
class Made:
    """What was written, and what a person reads about it."""

    folder: Path
    files: tuple[Path, ...]
    rows: InferredRows
    question: Question
    request: Mapping[str, Any]
    guesses: tuple[Guess, ...]


@dataclass(frozen=True)
class NewUseCase:
    """What a person asks for: a use case called ``name``, learned from all rows of ``file``, whose format is
    ``source``. ``label`` is a column, or asks for one: of the columns, given the likely one.
    """

    name: str
    file: Path
    source: str
    label: str | Callable[[Sequence[str], str], str]
    task: Task | None = None

    def inferred(self) -> tuple[InferredRows, Question]:
        """What the rows seem to be, and what is to be learned from them."""
        content = read_bytes(str(self.file.absolute()))
        rows = infer_rows(content, source=self.source, name=self.file.name, reserved=(REASONS, LABEL, SPLIT))
        columns = [one.original for one in rows.columns]
        label = self.label if isinstance(self.label, str) else self.label(columns, likely_label(rows))
        return rows, infer_question(rows, label, self.task)


def new_use_case(asked: NewUseCase, *, today: date, defs: Path, module: str = MODULE) -> Made:
    """Writes the folder of a use case below ``defs``, whose Python package is ``module``.

    Raises MlopsError in words, and then nothing was written.
    """
    name, file = asked.name, asked.file
    require_free(name, defs)
    if not file.is_file():
        raise MlopsError(f"{file} is no file. Give the path of a CSV or Parquet file on this machine.")
    rows, question = asked.inferred()
    folder = defs / name
    path, placed = _placed(file, asked.source, folder)
    transform = f"{module}.{name}.rows.prepared" if rows.key_made or rows.renamed else ""
    documents = _documents(name, rows, question, path=path, transform=transform, today=today)
    texts = {
        "__init__.py": f'"""What will {_words(question.label)} be? Declared in ``defs.yaml``."""\n',
        "defs.yaml": _head(name, file.name) + written.SEPARATOR.join(documents),
        **({"rows.py": _rows_py(name, rows)} if transform else {}),
    }
    folder.mkdir(parents=True)
    if placed is not None:
        shutil.copyfile(file, placed)
    for filename, text in texts.items():
        (folder / filename).write_text(text, encoding="utf-8")
    examples = {one.name: one.example for one in rows.columns}
    request = {"features": {one: examples[one] for one in question.features}}
    files = (*((placed,) if placed else ()), *(folder / filename for filename in sorted(texts)))
    guesses = (*_file_guesses(rows, path, copied=placed is not None), *rows.guesses, *question.guesses)
    return Made(folder, files, rows, question, request, guesses)


def _documents(
    name: str, rows: InferredRows, question: Question, *, path: str, transform: str, today: date
) -> list[str]:
    """The text of each document of the use case, in the order of the graph."""
    return [
        written.dataset(
            name,
            source=rows.source,
            path=path,
            columns=rows.types,
            key=[rows.key],
            options=rows.options,
            transform=transform,
        ),
        written.feature_view(
            name,
            base=name,
            key=[rows.key],
            features=question.features,
            examples={one.name: one.example for one in rows.columns},
            event_timestamp=question.event_timestamp,
        ),
        written.model(
            name,
            task=question.task,
            view=name,
            dataset=name,
            label=question.label,
            classes=question.classes,
            evaluation_window_days=question.evaluation_window_days,
            evaluation_fraction=question.evaluation_fraction,
            min_rows=question.min_rows,
        ),
        written.deployment(name, model=name),
        written.drift_monitor(name, since=today),
    ]


def _file_guesses(rows: InferredRows, path: str, *, copied: bool) -> tuple[Guess, Guess]:
    """What the columns were taken for, and where the file is read from."""
    return (
        Guess(
            "; ".join(f"{one.original}: {one.type}" for one in rows.columns),
            f"all {rows.rows} rows read so",
            "columns of the dataset",
        ),
        Guess(
            f"the file is read from {path}",
            "it was copied into the folder"
            if copied
            else f"it is larger than {LARGEST_COPIED >> 20} MB, so it stays",
            "path under source",
        ),
    )


def require_free(name: str, defs: Path) -> None:
    """MlopsError, with a name that would do, when no use case can be called so."""
    fits = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        better = fits if re.match("[a-z]", fits) else f"data_{fits}".rstrip("_")
        raise MlopsError(
            f"{name!r} is no name of a use case: lower case letters, digits and underscores, a letter first, "
            f"like {better}."
        )
    for kind in KINDS:
        problem = misread(kind, name)
        if problem:
            raise MlopsError(f"{name!r} is no name of a use case: {problem}.")
    if (defs / name).exists():
        raise MlopsError(
            f"{_shown(defs / name)} is there already. Choose another name, or remove the folder first (its "
            f"deployment then stays up until: mlops retire {name} --by NAME --reason TEXT)."
        )
    for other in found_documents(defs):
        if other.name == name:
            raise MlopsError(
                f"{name!r} is declared in {_shown(other.file)} already, and two documents cannot make one "
                "asset. Choose another name."
            )


def lines(made: Made, url: str) -> list[str]:
    """What a person reads: what was guessed and how to say otherwise, the files, the next steps."""
    text = ["What was taken to be so, why, and where to say otherwise:"]
    for guess in made.guesses:
        text += [f"  - {guess.what}", f"      because {guess.why}; otherwise: {guess.otherwise}"]
    text += ["", "Written:", *(f"  {_shown(file)}" for file in made.files)]
    request = json.dumps(made.request, ensure_ascii=False, default=str)
    quoted = request.replace("'", "'\\''")
    name = made.folder.name
    text += [
        "",
        "Next: read defs.yaml, then",
        "  dg check defs              # every document loads; `make up` says so too",
        "  make up                    # builds and deploys what is missing, also on a platform that is up",
        f"  curl -s {url}/{name}/predict -H 'content-type: application/json' -d '{quoted}'",
    ]
    return text


def require_label(columns: Sequence[str], likely: str) -> str:
    """Raises MlopsError: there is nobody to ask, and a guess would train the wrong thing."""
    raise MlopsError(
        f"Say which column is to be predicted: --label COLUMN. Columns: {', '.join(columns)}. The likely "
        f"one: {likely}."
    )


def _placed(file: Path, source: str, folder: Path) -> tuple[str, Path | None]:
    """The path that the source declares, and where the file is copied to; None when it stays."""
    if file.stat().st_size > LARGEST_COPIED:
        return str(file.absolute()), None
    packed = "".join(one for one in file.suffixes[-1:] if one in (".gz", ".zip"))
    filename = f"raw.{source}{packed}"
    return filename, folder / filename


def _head(name: str, file: str) -> str:
    return (
        f"# The use case {name}, written by `mlops new` from {file}. Everything in it is a guess that works\n"
        "# as it stands; change what is wrong, then `dg check defs`. Every line: docs/use-case.md.\n\n"
    )


def _words(column: str) -> str:
    return column.replace("_", " ").strip() or column


def _rows_py(name: str, rows: InferredRows) -> str:
    renamed = ""
    steps = []
    if rows.renamed:
        names = "".join(
            f"    {json.dumps(old, ensure_ascii=False)}: {json.dumps(new)},\n"
            for old, new in rows.renamed.items()
        )
        renamed = (
            f"\nRENAMED = {{\n{names}}}\n" + '"""Columns whose name in the file a table cannot have."""\n'
        )
        steps.append("rows = rows.rename(columns=RENAMED)")
    why = "The rows under names that a table can have."
    if rows.key_made:
        steps.append(f"rows = rows.assign({rows.key}=range(1, len(rows) + 1))")
        why = """The rows, numbered: no column of the file identifies one.

    A row keeps its number while the file grows at its end only. Where rows are inserted or sorted anew, make
    the key of what identifies one, like two columns together: list them under ``primary_key`` and
    ``join_keys``."""
    body = "\n".join(f"    {step}" for step in steps)
    return f'''"""How a line of the file becomes a row of ``{name}``. ``defs.yaml`` names the function."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
{renamed}

def prepared(rows: "pd.DataFrame") -> "pd.DataFrame":
    """{why}
    """
{body}
    return rows
'''


def _shown(path: Path) -> Path:
    root = environment.PROJECT_ROOT
    return path.relative_to(root) if path.is_relative_to(root) else path
