"""The scenes of the story, in the short form and in the full one.

Belongs here: which days are lived, and what each scene is about. Does not belong here: waiting and following
(``story.py``).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from demo.lateness import CHANGED_ON, LATE_MINUTES_SINCE
from demo.story import TUESDAY, Story, Unfulfilled
from demo.telling import Teller
from demo.world import ONE_DAY
from mlops_assets.asset_names import asset_name
from mlops_assets.defs.flights.features import LATE_MINUTES

MODEL = "flights"


@dataclass(frozen=True)
class Plan:
    """Which days there are.

    The first champion is trained on what had happened until ``champion_until``. Requests begin on
    ``first_day``; by ``last_day`` everything must have happened. ``arrivals``: weekdays (Monday is 0) on
    which outcomes arrive. ``until_promoted``: ends with the first promotion, instead of living all days.
    ``planted_loss``: from the first day on the world counts lateness as ``lateness.py`` says, and only
    evidence that adds up may find it.
    """

    champion_until: date
    first_day: date
    last_day: date
    until_promoted: bool
    arrivals: tuple[int, ...] = tuple(range(7))
    planted_loss: bool = False

    @property
    def spare(self) -> timedelta:
        """Days at the end that are kept for the planted model."""
        return 10 * ONE_DAY


SHORT = Plan(
    CHANGED_ON - ONE_DAY,
    CHANGED_ON,
    date(2013, 4, 21),
    until_promoted=True,
    arrivals=(TUESDAY,),
    planted_loss=True,
)
"""A champion of the winter meets a world that counts otherwise."""
FULL = Plan(date(2013, 3, 31), date(2013, 4, 1), date(2013, 12, 29), until_promoted=False)


def opening(teller: Teller, plan: Plan) -> None:
    """Before anything runs."""
    teller.scene(
        "An empty folder",
        f"It is {plan.champion_until + ONE_DAY:%d %B %Y} on the platform's clock. The stack starts and "
        "builds its graph from the raw files of the days until then, up to a first model that answers.",
    )


def tell(story: Story, plan: Plan, weather: Sequence[str], state: Path) -> None:
    """All scenes; Unfulfilled when a transition does not come."""
    package = _champion(story)
    day = _days(story, plan)
    _planted(story, day, weather)
    _summary(story, state)
    if not plan.until_promoted:
        _worth(story, package)


def _champion(story: Story) -> str:
    story.begin()
    endpoint = story.last.endpoint
    if endpoint is None:
        raise Unfulfilled(f"the endpoint of {asset_name('deployment', MODEL)} does not say that it is ready.")
    told = f"{story.fact('model', 'trainer')}, {story.fact('model', 'why')}"
    story.teller.line(f"{endpoint.stable} answers", told, mark="done")
    return story.fact("model", "package")


def _days(story: Story, plan: Plan) -> date:
    played = (
        f"A flight counts as late after {LATE_MINUTES_SINCE} minutes now, not after {LATE_MINUTES}."
        if plan.planted_loss
        else "The world is as it was."
    )
    story.teller.scene(
        "Days of requests",
        "Callers ask about every flight once, at its scheduled departure, through HTTP. Outcomes arrive days "
        f"later. {played} From here on only the platform acts.",
    )
    day = plan.first_day
    # The planted model is to meet a deployment at rest.
    while day <= plan.last_day - plan.spare or (
        story.rolling_out() and day <= plan.last_day - plan.spare / 2
    ):
        story.day(day)
        day += ONE_DAY
        if plan.until_promoted and story.repaired():
            break
    story.require_repair()
    return day


def _planted(story: Story, day: date, weather: Sequence[str]) -> None:
    story.teller.scene(
        "A bad model",
        "A colleague hands in a model from outside. On every row that the gate can see it is as good as the "
        "champion. It gives no number to a caller who does not know the weather.",
    )
    planted = story.world.plant(MODEL, list(weather))
    version = f"v{planted['version']}"
    story.teller.line(f"{version} is registered", f"content {planted['digest'][:12]}", mark="doing")
    story.rolled_back(version, day, weather)


def _summary(story: Story, state: Path) -> None:
    teller = story.teller
    asked = sum(len(lived.asks) for lived in story.lived)
    lost = sum(lived.lost for lived in story.lived)
    versions: dict[str, int] = {}
    for lived in story.lived:
        for name, count in lived.by_version().items():
            versions[name] = versions.get(name, 0) + count
    teller.table(
        f"{asked:,} requests, {lost} without a correct answer",
        ("answered by", "requests"),
        [(name, f"{count:,}") for name, count in sorted(versions.items())],
    )
    alerts = state / "alerts.jsonl"
    lines = alerts.read_text(encoding="utf-8").splitlines() if alerts.exists() else []
    teller.scene(f"{len(lines)} alerts were sent")
    for line in lines:
        told = json.loads(line)
        teller.item(str(told.get("kind")), str(told.get("summary")))


def _worth(story: Story, package: str) -> None:
    """What the loop's answers were, beside those of the first champion on the same requests."""
    from demo.quality import by_month
    from serve.scoring import load_package

    def shown(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    story.teller.table(
        "The loop beside the first champion, never retrained, on the same requests",
        ("month", "requests", "late", "never AUC", "never log loss", "loop AUC", "loop log loss"),
        [
            (
                one.month,
                f"{one.rows:,}",
                f"{one.late_share:.1%}",
                shown(one.never_auc),
                shown(one.never_log_loss),
                shown(one.loop_auc),
                shown(one.loop_log_loss),
            )
            for one in by_month(story.lived, load_package(package))
        ],
    )
