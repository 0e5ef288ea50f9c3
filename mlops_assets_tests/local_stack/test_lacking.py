"""What a person reads when not everything is up."""

from mlops_assets.local_stack.lacking import SHOWN_LINES, Lack, Orphan, lines


def test_nothing_is_said_when_everything_is_up() -> None:
    assert list(lines([], [])) == []


def test_each_use_case_stands_with_its_reason_and_what_to_do() -> None:
    lacks = [
        Lack("spoiled", "spoiled: no rows\nrun 1234: http://there", "make up"),
        Lack("typo", "defs.yaml:3: no YAML", "mend defs.yaml:3"),
    ]
    assert list(lines(lacks, [])) == [
        "NOT UP: spoiled, typo. Everything else is.",
        "  spoiled    spoiled: no rows",
        "             run 1234: http://there",
        "             to do: make up",
        "  typo       defs.yaml:3: no YAML",
        "             to do: mend defs.yaml:3",
    ]


def test_a_long_reason_is_cut_and_says_so() -> None:
    said = list(lines([Lack("a", "\n".join(f"line {n}" for n in range(40)), "make up")], []))
    assert len(said) == SHOWN_LINES + 3 and said[-2].strip() == "... and 28 lines more"


def test_orphans_are_told_with_the_command_that_stops_them() -> None:
    kept, retired = list(lines([], [Orphan("tea", "drinks"), Orphan("old", "", retired=True)]))[1:]
    assert "it was declared in drinks" in kept and "mlops retire tea --by NAME --reason TEXT" in kept
    assert retired.split() == ["old", "retired,", "as", "MLOPS_ORPHANS", "says"]
