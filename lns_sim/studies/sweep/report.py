"""What a sweep shows: a CSV of all trials, the best compromises, and their picture."""

from __future__ import annotations

import csv
import textwrap
from pathlib import Path

from lns_sim.studies.sweep.space import Space
from lns_sim.studies.sweep.study import Sweep

COST = "uJ a sample"
COST_MEANS = "energy of training on one sample in microjoule, by lns_sim.energy"


def front(sweep: Sweep) -> list:
    """The trials that no other beats in both respects, by cost; one of each point."""
    best = {}
    for trial in sorted(sweep.study.best_trials, key=lambda t: t.number):
        best.setdefault(tuple(trial.params.values()), trial)
    return sorted(best.values(), key=lambda t: t.values[1])


def describe(params: dict, space: Space) -> str:
    """A point in words: what varies."""
    return ", ".join(f"{key} {params[key]}" for key, values in space.items() if len(values) > 1 and key in params)


def write_csv(sweep: Sweep, path: Path) -> None:
    """One row a finished trial; the results are empty where there is none, and the note says why."""
    numbers = {trial.number for trial in front(sweep)}
    measure = sweep.data.measure
    with open(path, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(
            [
                "trial",
                *sweep.space,
                measure,
                COST,
                "best compromise",
                *(f"{measure}, seed {s}" for s in sweep.seeds),
                "saturated",
                "vanished",
                "seconds",
                "note",
            ]
        )
        for trial in sweep.study.get_trials(deepcopy=False):
            if trial.state.name not in ("COMPLETE", "PRUNED"):
                continue
            known, values = trial.user_attrs, trial.values or ("", "")
            table.writerow(
                [
                    trial.number,
                    *(trial.params.get(key, "") for key in sweep.space),
                    *values,
                    int(trial.number in numbers),
                    *known.get("tests", [""] * len(sweep.seeds)),
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
    """Every point by cost and measure; the best compromises joined and named.

    ``origin`` is the line below that says what made it (:func:`lns_sim.environment.caption`).
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    found = [t for t in sweep.study.get_trials(deepcopy=False) if t.state.name == "COMPLETE"]
    best = front(sweep)
    figure, axes = plt.subplots(figsize=(10.5, 5.5), layout="constrained")
    axes.plot([t.values[1] for t in found], [t.values[0] for t in found], "o", color="C0", alpha=0.45, label="trials")
    axes.plot(
        [t.values[1] for t in best],
        [t.values[0] for t in best],
        "o-",
        color="C1",
        drawstyle="steps-post",
        label="best compromises:",
    )
    for i, trial in enumerate(best, start=1):
        axes.annotate(str(i), trial.values[::-1], xytext=(0, 7), textcoords="offset points", fontsize=9, ha="center")
        axes.plot([], [], " ", label=f"{i}  {describe(trial.params, sweep.space)}")
    axes.margins(0.07)
    axes.set(title=title, xlabel=COST_MEANS, ylabel=sweep.data.measure)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=9, frameon=False)
    about = "\n".join(textwrap.wrap(origin, 180, break_on_hyphens=False))
    figure.supxlabel(about, fontsize=6, color="0.4", x=0.01, ha="left")
    figure.savefig(path, dpi=120)
    plt.close(figure)
