"""How often the judging of rollouts is wrong, and after how many requests it is right.

Belongs here: simulated rollouts with a look after every single request, and a naive repeated z-test on the
same requests beside them. Does not belong here: the tests (``mlops_assets/rollout/judging``).

``python -m bench.judging`` prints tables, ``--json`` the same numbers; two to three minutes on one core. The
decisions are computed for all looks at once from the kernels that ``judge`` uses; each scenario compares
a sample of them with ``judge`` itself and stops on the first difference.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from mlops_assets.rollout.judging.sequences import (
    TAIL,
)
from mlops_assets.testing.simulated_rollouts import LOSSES, errors_scenario, quality_scenario

# -- decisions at all looks ------------------------------------------------------------------------------


# -- scenarios -------------------------------------------------------------------------------------------


def error_rows(runs: int) -> Iterator[dict[str, Any]]:
    """Identical versions, versions exactly at the limits, and versions with five points more errors."""
    bases, shares = (0.0, 0.01, 0.05), (0.5, 0.1)
    crossed = [(base, share) for base in bases for share in shares if share == 0.5 or base == 0.01]
    for base, share in crossed:
        yield errors_scenario(share=share, base=base, runs=runs)
    for base in bases:
        yield errors_scenario(share=0.5, base=base, limit=0.0, runs=runs)
    for base in bases:
        yield errors_scenario(share=0.5, base=base, more=0.02, slow=TAIL, runs=runs)
    for base, share in crossed:
        yield errors_scenario(share=share, base=base, more=0.05, runs=runs)


def quality_rows(runs: int) -> Iterator[dict[str, Any]]:
    """Equal models, models exactly at the limit, and models whose loss is higher by 0.05."""
    for name in LOSSES:
        for paired in (True, False):
            for more in (0.0, 0.02, 0.05):
                yield quality_scenario(name, more=more, paired=paired, runs=runs)


def _told(spread: dict[str, int] | None) -> str:
    return f"{spread['median']:,} / {spread['p95']:,}" if spread else "-"


def tables(errors: Sequence[dict[str, Any]], quality: Sequence[dict[str, Any]]) -> list[Table]:
    """Both sets of scenarios for people."""
    shown = []
    for title, rows in (("Default analyses", errors), ("quality increase <= 0.02", quality)):
        table = Table(title=f"{title}, a look after every request", title_justify="left")
        for column in (
            "in truth",
            "judged by",
            "ever failed",
            "naive z-test",
            "failed at request (median / 95 %)",
            "ever successful",
            "successful at (median / 95 %)",
        ):
            table.add_column(column, justify="left" if column in ("in truth", "judged by") else "right")
        for row in rows:
            table.add_row(
                _truth(row),
                _how(row),
                f"{row['failed']:.1%}",
                f"{row['z_test_failed']:.1%}",
                _told(row["until_failed"]),
                f"{row['successful']:.1%}",
                _told(row["until_successful"]),
            )
        if rows:
            shown.append(table)
    return shown


def _truth(row: dict[str, Any]) -> str:
    if "base" not in row:
        return f"{row['loss']} {row['more']:+.2f}" if row["more"] else f"{row['loss']}: equal"
    told = f"errors {row['base']:.0%}" + (f" {row['more'] * 100:+.0f} points" if row["more"] else " each")
    return f"{told}, {row['slow']:.0%} slow" if row["slow"] == TAIL else told


def _how(row: dict[str, Any]) -> str:
    if "base" not in row:
        return "pairs" if row["paired"] else "two samples"
    return f"canary at {row['canary_share']:.0%}, limit {row['limit'] * 100:g} points"


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.judging", description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--runs", type=int, default=200, help="steps per scenario (default: 200)")
    parser.add_argument("--only", choices=("errors", "quality"), help="one of the two tables")
    chosen = parser.parse_args(arguments)
    errors = list(error_rows(chosen.runs)) if chosen.only != "quality" else []
    quality = list(quality_rows(chosen.runs)) if chosen.only != "errors" else []
    if chosen.json:
        print(json.dumps({"errors": errors, "quality": quality}, indent=1))
        return
    console = Console()
    for table in tables(errors, quality):
        console.print(table)


if __name__ == "__main__":
    main()
