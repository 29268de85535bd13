"""lns-sim compare-recipes: LNS-Madam and the systems it is compared with, on the same model and data, each with its
best learning rate.
"""

from __future__ import annotations

import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lns_sim import recipes
from lns_sim.checks import check_device
from lns_sim.cli.built import TechnologyName
from lns_sim.cli.command import command, refuse
from lns_sim.cli.console import Output
from lns_sim.cli.errors import interruptible
from lns_sim.cli.options import (
    Batch,
    Context,
    Data,
    Device,
    FirstSeed,
    FloatLr,
    FloatOptimizer,
    Model,
    Tokens,
    chosen_settings,
)
from lns_sim.environment import provenance
from lns_sim.files import write_json
from lns_sim.registry import RECIPES
from lns_sim.studies.contest import Contest, Entry, bits_of, learns_by
from lns_sim.studies.energy.technologies import get
from lns_sim.studies.energy.technology import Technology
from lns_sim.studies.training import data as datasets
from lns_sim.studies.training import report
from lns_sim.studies.training.trainer import Result, Settings, Trainer, check_fit

DEFAULTS = Settings()


@command
def compare_recipes(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(help="recipes, or files.toml", show_default=" ".join(RECIPES))
    ] = None,
    data: Data = "digits",
    model: Model = None,
    epochs: Annotated[int, typer.Option(help="of every run")] = 10,
    batch_size: Batch = DEFAULTS.batch_size,
    lr: Annotated[float, typer.Option(help="of multiplicative updates, about which is searched")] = DEFAULTS.lr,
    float_optimizer: FloatOptimizer = None,
    float_lr: FloatLr = None,
    search: Annotated[
        str,
        typer.Option(
            help="factors of the learning rate that each recipe is tuned over, on held-out samples; one: its rate, and "
            "no search"
        ),
    ] = "0.25,1,4",
    extend: Annotated[
        int, typer.Option(help="at most so many more factors, beyond the end where the best lies, until it lies inside")
    ] = 6,
    held_out: Annotated[float, typer.Option(help="share of the training set for that")] = 0.2,
    context: Context = None,
    tokens: Tokens = None,
    seed: FirstSeed = 0,
    seeds: Annotated[int, typer.Option(help="how many seeds", min=1)] = 3,
    technology: TechnologyName = "paper",
    device: Device = "cpu",
    out: Annotated[Path, typer.Option(help="folder for runs.json, recipes.json, recipes.png and .svg")] = Path(
        "runs/recipes"
    ),
    *,
    output: Output,
) -> None:
    """Train a model by LNS-Madam and by the systems it is compared with, each tuned by the same search; the same
    command goes on.
    """
    try:
        factors = [float(f) for f in search.split(",")]
    except ValueError:
        raise ValueError(f"--search takes factors such as 0.25,1,4, got {search!r}") from None
    settings = chosen_settings(
        data, model, float_optimizer, float_lr, epochs=epochs, batch_size=batch_size, lr=lr, counters=False
    )
    if len(factors) == 1:
        refuse(ctx, ["held_out", "extend"], "one factor needs no search")
    check_device(device)
    prices = get(technology)
    dataset = datasets.load(data, context, tokens)
    check_fit(settings.model, dataset)
    chosen, all_seeds = names or list(RECIPES), list(range(seed, seed + seeds))
    if not any(learns_by(recipes.get(name)) == "lr" for name in chosen):
        refuse(ctx, ["lr"], "no recipe here learns by multiplicative updates")
    contest = Contest(dataset, chosen, settings, factors, all_seeds, out / "runs.json", device, held_out, extend)
    out.mkdir(parents=True, exist_ok=True)
    with interruptible(output, "finished runs are kept. The same command goes on."):
        entries = _run(contest, output)
    _show(contest, entries, prices, out, output)


def _run(contest: Contest, output: Output) -> list[Entry]:
    with output.progress("runs") as bar:
        task = bar.add_task("training", total=contest.runs, completed=contest.finished)

        def on_step(name: str, trainer: Trainer) -> None:
            bar.update(task, description=f"{name}, seed {trainer.seed}, epoch {trainer.epoch + 1}")

        def on_run(key: str, result: dict | None) -> None:
            bar.update(task, completed=contest.finished)
            said = "diverged" if result is None else f"{contest.data.measure} {result['test'][-1]:.4g}"
            output.tell(f"run {contest.finished}/{contest.runs}: {key.replace('|', ', ')}: {said}")

        return contest.run(on_step, on_run)


def _show(contest: Contest, entries: list[Entry], technology: Technology, out: Path, output: Output) -> None:
    measure = contest.data.measure
    title = contest.settings.title(contest.data)
    tensors = ["activation", "weight", "error", "gradient"]
    header = ["recipe", *tensors, measure, "learning rate", "seconds", "uJ a sample"]
    energies, results, rows = contest.energies(technology), [], []
    for entry in entries:
        done = [Result(**r) for r in entry.results.values() if r]
        results += done
        lost = len(entry.results) - len(done)
        score = report.spread([r.test[-1] for r in done], 2 if "%" in measure else 4) if done else "diverged"
        joule = energies[entry.name]
        rows.append(
            [
                entry.name,
                *bits_of(contest.recipes[entry.name]).values(),
                score + (f" ({lost} diverged)" if done and lost else ""),
                "-" if entry.lr is None else f"{entry.lr:.3g}" + (f" ({entry.end} tried)" if entry.end else ""),
                f"{statistics.mean(r.seconds for r in done):.1f}" if done else "-",
                "-" if joule is None else f"{joule:.3g}",
            ]
        )
    for entry in entries:
        if entry.end:
            rate = f"{entry.lr:.3g}, the {entry.end} of {len(entry.tuned)} learning rates tried"
            output.tell(f"{entry.name} is best at {rate}: others beyond may be better; give --extend or --search more")
    record = provenance(
        title=title,
        **contest.about,
        entries=[asdict(e) for e in entries],
        energies=energies,
        technology=technology.describe(),
    )
    write_json(record, out / "recipes.json")
    if results:
        report.draw_curves(results, title, measure, out / "recipes.png", record)
    output.table(
        title,
        "bits of tensors in products (of weights as they are stored); mean ± standard deviation over seeds at the best "
        "learning rate; uJ: energy of training on a sample by lns_sim.energy, where "
        f"its technology {technology.name} has the format",
        header,
        rows,
        width=150,
        left=["recipe"],
        spare=["seconds", "learning rate", "uJ a sample", "gradient"],
    )
    output.show(*report.gpu_lines(results))
    drawn = f", recipes.png and recipes.svg to {out}." if results else f" to {out}; no run ended."
    output.show(f"Wrote recipes.json{drawn}")
    output.result(record)
