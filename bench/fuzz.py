"""Ten thousand requests made of the endpoint's own description, and as many to the paths of the V2 protocol.

Belongs here: sending that many, and what was answered. Does not belong here: the endpoint and its description
(``mlops_assets/testing/fuzzing.py``); its short form is a test. Everything
runs in this process, on real models: it is a matter of right answers, not of speed.
"""

import argparse
import asyncio
import contextlib
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import given
from hypothesis.errors import Unsatisfiable
from rich.console import Console
from rich.table import Table

from mlops_assets.testing.fuzzing import (
    INFER,
    Mounted,
    described,
    fuzz_settings,
    infer_requests,
    keyed,
    keys_file,
    looked_up,
)
from mlops_assets.testing.site import Site
from mlops_assets.testing.small_models import routing

Counts = Counter[tuple[str, int]]
"""By group of paths and status."""
V2, OTHERS = "V2 paths", "other paths"


def described_requests(schema: schemathesis.BaseSchema, examples: int, counts: Counts) -> None:
    """Valid and invalid requests of every operation, each answer checked against the description."""
    for made in schema.get_all_operations():
        operation = made.ok()
        group = V2 if operation.path.startswith("/v2") else OTHERS
        for mode in schemathesis.GenerationMode:
            # What takes nothing cannot be asked wrongly.
            with contextlib.suppress(Unsatisfiable):
                _ask(operation.as_strategy(generation_mode=mode), group, examples, counts)


def _ask(cases: Any, group: str, examples: int, counts: Counts) -> None:
    @given(cases)
    @fuzz_settings(examples)
    def ask(case: schemathesis.Case) -> None:
        answer = case.call()
        case.validate_response(answer)
        assert answer.status_code < 500, answer.text
        counts[group, answer.status_code] += 1

    ask()


def tensors(examples: int, counts: Counts) -> None:
    """Infer requests that are nearly right, as JSON and as bytes."""
    infer = described(Mounted("binary"), examples=1)[INFER]["POST"]
    with asyncio.Runner() as runner:
        site = Site()
        runner.run(site.declare(routing()))

        @given(infer_requests())
        @fuzz_settings(examples)
        def ask(request: tuple[bytes, dict[str, str]]) -> None:
            body, headers = request
            answer = runner.run(site.http.post(INFER, content=body, headers=headers))
            infer.validate_response(answer)
            assert answer.status_code < 500, answer.text
            counts[V2, answer.status_code] += 1

        ask()
        runner.run(site.http.aclose())


def requests(examples: int) -> Counts:
    """Answers by group and status; some 25 times ``examples``. Raises what Schemathesis finds."""
    counts: Counts = Counter()
    with tempfile.TemporaryDirectory(prefix="mlops-fuzz-") as folder:
        described_requests(described(Mounted("binary"), examples=examples), examples, counts)
        described_requests(keyed(keys_file(Path(folder)), examples=examples), examples, counts)
        described_requests(looked_up(Path(folder) / "online", examples=examples), examples, counts)
    tensors(5 * examples, counts)
    return counts


def main(arguments: Sequence[str] | None = None) -> None:
    """Asks and prints; minutes."""
    parser = argparse.ArgumentParser(prog="python -m bench.fuzz", description=__doc__)
    parser.add_argument("--examples", type=int, default=500, help="per operation and kind of request")
    counts = requests(parser.parse_args(arguments).examples)
    table = Table(title="Requests made of the description: answers by status", title_justify="left")
    statuses = sorted({status for _, status in counts})
    for column in ("", "requests", *map(str, statuses)):
        table.add_column(column, justify="right" if column else "left")
    for group in (OTHERS, V2):
        found = [counts[group, status] for status in statuses]
        table.add_row(group, f"{sum(found):,}", *(f"{count:,}" for count in found))
    Console().print(table)


if __name__ == "__main__":
    main()
