"""What a sweep shows: a CSV of all trials, the best compromises, and their picture."""

from __future__ import annotations

import csv
import statistics
from pathlib import Path

from lns_sim.studies.pictures import finish, pyplot
from lns_sim.studies.sweep.costs import COSTS
from lns_sim.studies.sweep.space import Space
from lns_sim.studies.sweep.study import Sweep


def front(sweep: Sweep) -> list:
    """The trials that no other beats in all respects, by the first cost; one of each point."""
    best = {}
    for trial in sorted(sweep.study.best_trials, key=lambda t: t.number):
        best.setdefault(tuple(trial.params.values()), trial)
    return sorted(best.values(), key=lambda t: t.values[1])


def describe(params: dict, space: Space) -> str:
    """A point in words: what varies, if anything does."""
    varied = [key for key, values in space.items() if len(values) > 1] or space
    return ", ".join(f"{key} {params[key]}" for key in varied if key in params)


def costs(sweep: Sweep) -> list[str]:
    """The costs as columns call them."""
    return [COSTS[name][0] for name in sweep.costs]


def meaning(sweep: Sweep) -> str:
    """What the costs mean, and where their prices come from."""
    return f"{'; '.join(f'{COSTS[name][0]}: {COSTS[name][1]}' for name in sweep.costs)}; technology {sweep.technology}"


def write_csv(sweep: Sweep, path: Path) -> None:
    """One row a finished trial; the results are empty where there is none, and the note says why."""
    numbers = {trial.number for trial in front(sweep)}
    judged, measure = sweep.criterion, sweep.data.measure
    with open(path, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(
            [
                "trial",
                *sweep.space,
                judged,
                *costs(sweep),
                "best compromise",
                measure,
                *(f"{name}, seed {s}" for name in (judged, measure) for s in sweep.seeds),
                "saturated",
                "vanished",
                "seconds",
                "note",
            ]
        )
        for trial in sweep.study.get_trials(deepcopy=False):
            if trial.state.name not in ("COMPLETE", "PRUNED"):
                continue
            known, values = trial.user_attrs, trial.values or [""] * (1 + len(sweep.costs))
            none = [""] * len(sweep.seeds)
            table.writerow(
                [
                    trial.number,
                    *(trial.params.get(key, "") for key in sweep.space),
                    *values,
                    int(trial.number in numbers),
                    statistics.mean(known["tests"]) if "tests" in known else "",
                    *known.get("held out", none),
                    *known.get("tests", none),
                    known.get("saturated", ""),
                    known.get("vanished", ""),
                    known.get("seconds", ""),
                    known.get("none", ""),
                ]
            )


def trials(sweep: Sweep) -> list[dict]:
    """Every finished trial as plain data: its point, values (None where there is no result) and what else is known."""
    return [
        {"trial": t.number, "point": t.params, "values": t.values, **t.user_attrs}
        for t in sweep.study.get_trials(deepcopy=False)
        if t.state.name in ("COMPLETE", "PRUNED")
    ]


def draw(sweep: Sweep, title: str, origin: str, path: Path) -> None:
    """Every point by each cost and what it is judged by, with standard deviations where there are several seeds; the
    best compromises of all, named; joined where there is one cost.

    ``origin`` is the line below that says what made it (:func:`lns_sim.environment.caption`).
    """
    plt = pyplot()
    found = [t for t in sweep.study.get_trials(deepcopy=False) if t.state.name == "COMPLETE"]
    best, n = front(sweep), len(sweep.costs)
    joined = dict(drawstyle="steps-post") if n == 1 else dict(ls="")
    figure, places = plt.subplots(1, n, figsize=(4.5 + 6 * n, 5.5), layout="constrained", squeeze=False, sharey=True)
    for k, (place, cost) in enumerate(zip(places[0], sweep.costs), start=1):
        deviations = [statistics.stdev(t.user_attrs["held out"]) for t in found] if len(sweep.seeds) > 1 else None
        x, y = [t.values[k] for t in found], [t.values[0] for t in found]
        place.errorbar(x, y, deviations, fmt="o", color="C0", alpha=0.45, elinewidth=1, zorder=1)
        place.plot([t.values[k] for t in best], [t.values[0] for t in best], marker="o", color="C1", **joined)
        for i, trial in enumerate(best, start=1):
            at = (trial.values[k], trial.values[0])
            place.annotate(str(i), at, xytext=(0, 7), textcoords="offset points", fontsize=9, ha="center")
        place.margins(0.07)
        place.set(xlabel=COSTS[cost][1])
        place.grid(alpha=0.3)
    last = places[0][-1]
    spread = f", mean and deviation of {len(sweep.seeds)} seeds" if len(sweep.seeds) > 1 else ""
    places[0][0].set(ylabel=sweep.criterion + spread)
    last.plot([], [], "o", color="C0", alpha=0.45, label="trials")
    last.plot([], [], "o", color="C1", label="best compromises:")
    for i, trial in enumerate(best, start=1):
        last.plot([], [], " ", label=f"{i}  {describe(trial.params, sweep.space)}")
    figure.legend(loc="outside right upper", fontsize=9, frameon=False)
    finish(figure, title, origin, path)
