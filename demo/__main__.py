"""``python -m demo``: arguments in, the story told, an exit code out."""

import sys

import click


@click.command()
@click.option("--full", is_flag=True, help="All days from April to December, instead of some weeks.")
@click.option("--keep", is_flag=True, help="Leave the stack up at the end, until Ctrl-C.")
def main(full: bool, keep: bool) -> None:
    """Live the whole loop on a virtual clock: drift, retrain, rollout, a bad model rolled back."""
    from rich.console import Console

    from demo.run import loop
    from mlops_assets.errors import MlopsError
    from mlops_assets.local_stack.up import StopRequested

    try:
        held = loop(Console(), full=full, keep=keep)
    except StopRequested:
        sys.exit(130)
    except MlopsError as error:
        raise click.ClickException(str(error)) from error
    sys.exit(0 if held else 1)


main()
