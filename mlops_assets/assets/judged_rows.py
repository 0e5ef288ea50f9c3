"""From a source to judged rows: the one way, for a dataset's table and for stores that follow its stream.

Belongs here: reading and judging in their order. Does not belong here: reading itself (``data/loading.py``),
judging (``data/validation.py``), what becomes of the rows (``dataset.py``, ``followed_rows.py``).
"""

from collections.abc import Sequence

from mlops_assets.data.loading import Loaded, Source, load
from mlops_assets.data.sources import LakeAccess
from mlops_assets.data.validation import Validated, validate
from mlops_assets.documents.dataset import DatasetDeclaration


def judged_rows(
    lake: LakeAccess, declared: DatasetDeclaration, source: Source, asked: Sequence[str] | None
) -> tuple[Loaded, Validated]:
    """Rows of the asked-for partitions (None: of a dataset without any), and what was found of them.

    Raises DataError for what cannot be attributed to a partition, and SourceUnavailable.
    """
    partitions = declared.partitions
    column = partitions.column if partitions else None
    loaded = load(
        source,
        declared.columns,
        partition_column=column,
        partitions=asked,
        lake=lake,
        is_key=partitions.is_key if partitions else lambda _: True,
    )
    return loaded, validate(
        loaded.frame, declared.rules(), partition_column=column, partitions=asked, earlier=loaded.findings
    )
