"""``make bench``: every number of docs/benchmarks.md, as tables."""

from rich.console import Console
from rich.table import Table

from bench import (
    backtest,
    by_key,
    endpoint,
    event_to_answer,
    graph,
    judging,
    keyed_serving,
    lifecycle,
    online_stores,
    serving,
    sources,
    streams,
    walk_forward,
)


def main() -> None:
    """Runs and prints everything; about an hour on two cores."""
    console = Console()
    table = Table(title="The flights graph (seconds)", title_justify="left")
    for column in ("what", "wall", "CPU"):
        table.add_column(column, justify="left" if column == "what" else "right")
    with console.status("running the flights graph twice from raw files: a few minutes"):
        for name, cost in graph.costs().items():
            table.add_row(name, f"{cost.wall_s:.1f}", f"{cost.cpu_s:.1f}")
    console.print(table)
    sources.main([])
    walk_forward.main([])
    backtest.main([])
    judging.main([])
    endpoint.main()
    by_key.main([])
    online_stores.main([])
    lifecycle.main([])
    serving.main([])
    keyed_serving.main([])
    streams.main()
    event_to_answer.main([])


if __name__ == "__main__":
    main()
