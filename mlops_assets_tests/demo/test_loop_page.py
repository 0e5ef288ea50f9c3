"""The run shown in ``docs/loop.md`` is made of sentences that the story still says.

A replay takes minutes, so the lines are held against the sentences in the code of ``demo``. A line that
no sentence makes any more is of an old run; what ``make loop`` prints takes its place.
"""

import ast
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from demo import run, scenes, story
from demo.story import SAID
from demo.telling import MARKS

PAGE = (Path(__file__).parents[2] / "docs" / "loop.md").read_text(encoding="utf-8")
LINES = PAGE[PAGE.index("## A run") :].split("```text\n")[1].split("```")[0].splitlines()
TIMED = re.compile(
    r"(?:[A-Z][a-z]{2} \d\d [A-Z][a-z]{2} \d\d:\d\d| {16})  +\d+\.\d s  (?P<mark>.) (?P<said>.*)"
)
Literals = tuple[str, ...]
"""A sentence as its fixed texts: between two of them stands a value."""


def literals(made: ast.expr) -> Literals | None:
    """The fixed texts of an expression; None for one that has none."""
    if isinstance(made, ast.Constant) and isinstance(made.value, str):
        return (made.value,)
    if isinstance(made, ast.JoinedStr):
        found = [""]
        for part in made.values:
            if isinstance(part, ast.Constant):
                found[-1] += str(part.value)
            else:
                found.append("")
        return tuple(found)
    return None


def told_by(*methods: str) -> list[Literals]:
    """What the story gives these methods of its ``Teller``."""
    calls = [
        call
        for module in (scenes, story, run)
        for call in ast.walk(ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in methods
    ]
    found = [literals(argument) for call in calls for argument in call.args]
    return [one for one in found if one is not None and re.search("[a-z]{3}", "".join(one))]


def beginnings(sentence: Literals) -> Iterator[Literals]:
    """The sentence, cut at every place of its fixed texts."""
    for number, text in enumerate(sentence):
        for end in range(len(text) + 1):
            yield (*sentence[:number], text[:end])


def makes(sentence: Literals, line: str) -> bool:
    """Whether the sentence can be the line, which ends in an ellipsis where the page cuts it."""
    start = line.removesuffix(" …")
    forms: Sequence[Literals] = [sentence] if start == line else list(beginnings(sentence))
    return any(re.fullmatch(".+".join(map(re.escape, one)), start) for one in forms)


def is_said(line: str, sentences: Sequence[Literals]) -> bool:
    """Whether one of the sentences can be the line."""
    return any(makes(one, line) for one in sentences)


TRANSITIONS = [*(tuple(text.split("{}")) for text in SAID.values()), *told_by("line")]
FRAME = told_by("scene", "table", "end")
HEADINGS = [line for number, line in enumerate(LINES) if line and not (LINES[number - 1] if number else "")]
ABOUT = [line for title, line in pairwise(LINES) if title in HEADINGS and line[:1].isupper()]


def test_a_line_with_a_time_is_a_transition_with_its_mark() -> None:
    found = [timed for line in LINES if (timed := TIMED.fullmatch(line))]
    assert len(found) > 50
    marks = {re.sub(r"\[.*?\]", "", mark) for mark in MARKS.values()}
    assert {timed["mark"] for timed in found} <= marks
    told = [timed["said"].split("  ")[0] for timed in found]
    assert [line for line in told if not is_said(line, TRANSITIONS)] == []


def test_headings_and_what_a_scene_is_about_are_the_story_s() -> None:
    assert len(HEADINGS) == 6 and len(ABOUT) == 3
    assert [line for line in (*HEADINGS, *ABOUT) if not is_said(line, FRAME)] == []


def test_a_sentence_that_nobody_says_any_more_is_found() -> None:
    assert not is_said("models/flights is OUT OF DATE", TRANSITIONS)
    assert is_said("flights_model is STALE", TRANSITIONS)
    assert not makes(("It is ", " on the clock."), "It was 1 April on the …")
    assert makes(("It is ", " on the clock."), "It is 1 April on the …")
