"""A finished backtest for people: tables of regimes, months and retrains, a sentence, and a plot. Pure.

Belongs here: table rows and PNG bytes of a backtest. Does not belong here: replaying
(``replay.py``), the layout of a table (``assets/metadata.py``), the style of a plot
(``evaluation/drawing.py``).
"""

from datetime import datetime, timedelta
from typing import Any

from mlops_assets.backtest.replay import REGIMES, SHOWN, TRADED, Backtest, RegimeReplay
from mlops_assets.evaluation.drawing import COLOURS, FAINT, INK, blank, dress, legend, png
from mlops_assets.evaluation.metrics import metric

_WORDS = {"promoted": "passed the gate", "rejected": "rejected", "inconclusive": "inconclusive"}


def comparison_rows(found: Backtest) -> list[dict[str, str]]:
    """One row per regime: mean metrics over the months, share of weekly's gain, retrains, episodes, delay."""
    rows = []
    for one in found.replays:
        row = {"regime": _words(one.regime)}
        for name in SHOWN[found.task]:
            row[f"mean {name}"] = _number(one.mean(name))
            row[f"share of weekly's gain, {name}"] = _percent(found.share_of_gain(one.regime, name))
        row |= {
            "retrains": str(len(one.retrains)),
            "refused": str(len(_refusals(one))) if one.regime == "calendar" else "",
            "promoted": str(one.count("promoted")),
            "rejected": str(one.count("rejected")),
            "inconclusive": str(one.count("inconclusive")),
            "episodes": str(len(one.of_drift)) if _by_drift(one) else "",
            "median days to detect": "" if one.delay_days is None else f"{one.delay_days:.0f}",
            "mean data age, days": f"{one.data_age_days:.0f}",
        }
        rows.append(row)
    return rows


def month_rows(found: Backtest) -> list[dict[str, str]]:
    """One row per month: answers, and every regime's metrics."""
    rows = []
    for number, month in enumerate(found.replays[0].months if found.replays else ()):
        row = {"month": month.start[:7], "answers": f"{month.answers:,}"}
        for one in found.replays:
            for name in SHOWN[found.task]:
                row[f"{_words(one.regime)}: {name}"] = _number(one.months[number].metrics.get(name))
        rows.append(row)
    return rows


def retrain_rows(found: Backtest) -> list[dict[str, str]]:
    """One row per retrain of regime drift: its time, its episode and why that opened, the gate's verdict."""
    one = found.replay_of("drift")
    if one is None:
        return []
    reasons = {episode.number: episode.reason for episode in one.episodes}
    return [
        {
            "when": retrain.at[:10],
            "episode": str(retrain.episode),
            "opened because": reasons.get(retrain.episode or 0, ""),
            "version": retrain.version,
            "gate": _WORDS.get(retrain.outcome, retrain.outcome)
            + (f" at look {retrain.looks}, {retrain.judged_at[:10]}" if retrain.looks > 1 else ""),
            "in words": retrain.reason,
        }
        for retrain in one.retrains
    ]


def calendar_rows(found: Backtest) -> list[dict[str, str]]:
    """One row per moment at which regime calendar asked: granted or refused, and the gate's verdict."""
    one = found.replay_of("calendar")
    if one is None:
        return []
    refused = [
        {"when": at[:16], "governor": "refused", "version": "", "gate": "", "in words": reason}
        for at, reason in _refusals(one)
    ]
    granted = [
        {
            "when": retrain.at[:16],
            "governor": "granted",
            "version": retrain.version,
            "gate": _WORDS.get(retrain.outcome, retrain.outcome),
            "in words": retrain.reason,
        }
        for retrain in one.retrains
    ]
    return sorted([*refused, *granted], key=lambda row: row["when"])


def _refusals(one: RegimeReplay) -> list[tuple[str, str]]:
    return [(at, reason) for at, action, reason in one.decisions if action == "refuse"]


def trade_rows(found: Backtest) -> list[dict[str, str]]:
    """What the rate of false alarms trades: one row per rate that was replayed, and one for never retraining.

    Empty where no rate was replayed.
    """
    if not any(one.regime in TRADED for one in found.replays):
        return []
    return [
        {
            "false alarms per year": f"{TRADED[one.regime]:g}" if one.regime in TRADED else one.regime,
            "episodes": str(len(one.of_drift)),
            "median days to detect": "" if one.delay_days is None else f"{one.delay_days:.0f}",
            "retrains": str(len(one.retrains)),
            "passed the gate": str(one.count("promoted")),
            **{f"mean {name}": _number(one.mean(name)) for name in SHOWN[found.task]},
        }
        for one in found.replays
        if one.regime in TRADED or one.regime == "never"
    ]


def _by_drift(one: RegimeReplay) -> bool:
    return one.regime in REGIMES and REGIMES[one.regime].schedule == "drift"


def conclusion(found: Backtest) -> str:
    """The comparison in one sentence."""
    one = found.replay_of("drift")
    if one is None:
        return f"{len(found.replays)} regimes from {found.start[:10]} to {found.end[:10]}"
    name = SHOWN[found.task][0]
    share = found.share_of_gain("drift", name)
    reached = (
        f"reaches {share:.0%} of what weekly retraining gains over never in {name}"
        if share is not None
        else f"has a mean {name} of {_number(one.mean(name))}"
    )
    return (
        f"From {found.start[:10]} to {found.end[:10]} retraining on drift {reached}, with "
        f"{len(one.retrains)} retrains in {len(one.of_drift)} episodes"
    )


def backtest_plot(found: Backtest) -> bytes:
    """Three panels over time: the first metric per window, its gain over never, each regime's retrains.

    A filled mark is a retrain that passed the gate, a hollow one did not; bars are open episodes.
    """
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    name = SHOWN[found.task][0]
    figure = blank(9.0, 7.4)
    top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=(3, 2.2, 1.2))
    dress(top, f"{name} per window", "", name)
    never = found.replay_of("never")
    dress(middle, f"Gain in {name} over never retraining (up is better)", "", "Gain")
    middle.axhline(0, color=FAINT, linewidth=1)
    dress(bottom, "Retrains: filled passed the gate, hollow did not", "", "", grid="x")
    # Regime drift is drawn in front of the schedules.
    ordered = sorted(found.replays, key=lambda one: one.regime != "drift")
    colours = {one.regime: colour for one, colour in zip(ordered, COLOURS, strict=False)}
    sign = 1.0 if metric(name, found.task).greater_is_better else -1.0
    for depth, one in enumerate(ordered):
        style = {
            "color": colours.get(one.regime, FAINT),
            "linewidth": 2.2 if one.regime == "drift" else 1.3,
            "zorder": 9 - depth,
        }
        times, values = _line(one, name)
        top.plot(times, values, label=_words(one.regime), **style)
        if never is not None and one is not never:
            middle.plot(times, [sign * gain for gain in _gains(one, never, name)], **style)
    for place, one in enumerate(reversed(ordered)):
        _draw_retrains(bottom, place, one, colours.get(one.regime, FAINT), found.end)
    bottom.set_yticks(range(len(ordered)), [_words(one.regime) for one in reversed(ordered)])
    bottom.set_ylim(-0.6, len(ordered) - 0.4)
    locator = AutoDateLocator()
    bottom.xaxis.set_major_locator(locator)
    bottom.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    if not found.replays:
        top.text(0.5, 0.5, "no regime was replayed", transform=top.transAxes, ha="center", color=INK)
    else:
        legend(top)
    return png(figure)


def _draw_retrains(axes: Any, place: int, one: RegimeReplay, colour: str, end: str) -> None:
    """The line of one regime: bars of its episodes, marks of its retrains."""
    for episode in one.episodes:
        opened = datetime.fromisoformat(episode.opened_at)
        closed = datetime.fromisoformat(episode.closed_at or end)
        length = max(closed - opened, timedelta(hours=12))
        axes.barh(place, length, left=opened, height=0.5, color=colour, alpha=0.25)
    for retrain in one.retrains:
        axes.plot(
            [datetime.fromisoformat(retrain.at)],
            [place],
            marker="o",
            markersize=5,
            markeredgecolor=colour,
            color=colour if retrain.outcome == "promoted" else "white",
            linewidth=0,
        )


def _gains(one: RegimeReplay, never: RegimeReplay, name: str) -> list[float]:
    """By how much each window's metric is above that of never retraining; NaN where one is not defined."""
    return [
        ours - theirs if ours is not None and theirs is not None else float("nan")
        for ours, theirs in zip(_values(one, name), _values(never, name), strict=True)
    ]


def _words(regime: str) -> str:
    if regime in TRADED:
        return f"drift, {TRADED[regime]:g} false alarms a year"
    return regime.replace("_ungated", ", not gated").replace("_", "-")


def _line(one: RegimeReplay, name: str) -> tuple[list[datetime], list[float]]:
    ends = [
        (datetime.fromisoformat(window.start), datetime.fromisoformat(window.end)) for window in one.windows
    ]
    times = [start + (end - start) / 2 for start, end in ends]
    return times, [float("nan") if value is None else value for value in _values(one, name)]


def _values(one: RegimeReplay, name: str) -> list[float | None]:
    return [window.metrics.get(name) for window in one.windows]


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.4f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"
