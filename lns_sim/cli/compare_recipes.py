"""lns-sim compare-recipes: LNS-Madam and the systems it is compared with, on the same model and data, each with its
best learning rate.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from lns_sim.checks import check_device
from lns_sim.cli.console import make_console
from lns_sim.cli.errors import user_errors
from lns_sim.cli.options import Context, Data, Device, FloatLr, FloatOptimizer, Model, Tokens, chosen_settings
from lns_sim.environment import environment
from lns_sim.registry import RECIPES
from lns_sim.studies.contest import Contest, Entry, bits_of
from lns_sim.studies.training import data as datasets
from lns_sim.studies.training import report
from lns_sim.studies.training.trainer import Result, Settings, check_fit

DEFAULTS = Settings()


def compare_recipes(
    names: Annotated[
        list[str] | None, typer.Argument(help="recipes, or files.toml", show_default=" ".join(RECIPES))
    ] = None,
    data: Data = "digits",
    model: Model = None,
    epochs: Annotated[int, typer.Option(help="of every run")] = 10,
    batch_size: Annotated[int, typer.Option(help="samples per step")] = DEFAULTS.batch_size,
    lr: Annotated[float, typer.Option(help="of multiplicative updates, about which is searched")] = DEFAULTS.lr,
    float_optimizer: FloatOptimizer = None,
    float_lr: FloatLr = None,
    search: Annotated[
        str,
        typer.Option(
            help="factors of the learning rate that each recipe is tuned over, on held-out samples; one: no search"
        ),
    ] = "0.25,1,4",
    held_out: Annotated[float, typer.Option(help="share of the training set for that")] = 0.2,
    context: Context = 128,
    tokens: Tokens = "byte",
    seed: Annotated[int, typer.Option(help="first seed", min=0)] = 0,
    seeds: Annotated[int, typer.Option(help="how many seeds", min=1)] = 3,
    device: Device = "cpu",
    out: Annotated[Path, typer.Option(help="directory for runs.json, recipes.json and recipes.png")] = Path(
        "runs/recipes"
    ),
) -> None:
    """Train a model by LNS-Madam and by the systems it is compared with, each tuned by the same search; the same
    command goes on.
    """
    console = make_console(width=150)
    with user_errors():
        try:
            factors = [float(f) for f in search.split(",")]
        except ValueError:
            raise ValueError(f"--search takes factors such as 0.25,1,4, got {search!r}") from None
        settings = chosen_settings(
            data, model, float_optimizer, float_lr, epochs=epochs, batch_size=batch_size, lr=lr, counters=False
        )
        check_device(device)
        dataset = datasets.load(data, context, tokens)
        check_fit(settings.model, dataset)
        out.mkdir(parents=True, exist_ok=True)
        chosen, all_seeds = names or list(RECIPES), list(range(seed, seed + seeds))
        contest = Contest(dataset, chosen, settings, factors, all_seeds, out / "runs.json", device, held_out)
        try:
            entries = _run(contest, console)
        except KeyboardInterrupt:
            console.print("Interrupted; finished runs are kept. The same command goes on.")
            raise typer.Exit(130) from None
        _show(contest, entries, out, console)


def _run(contest: Contest, console: Console) -> list[Entry]:
    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("runs"),
        TimeElapsedColumn(),
    ]
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("training", total=contest.runs, completed=contest.finished)
        return contest.run(
            lambda name, trainer: progress.update(
                task, description=f"{name}, seed {trainer.seed}, epoch {trainer.epoch + 1}"
            ),
            lambda: progress.update(task, completed=contest.finished),
        )


def _show(contest: Contest, entries: list[Entry], out: Path, console: Console) -> None:
    measure = contest.data.measure
    title = f"{contest.settings.model} on {contest.data.name}, {contest.settings.epochs} epochs"
    table = Table(
        title=title,
        caption="bits of tensors in products (of weights as they are stored); mean ± standard deviation over "
        "seeds at the "
        "best learning rate; uJ: energy of training on one sample by lns_sim.energy, where it has the format",
    )
    for name in (
        "recipe",
        "activation",
        "weight",
        "error",
        "gradient",
        measure,
        "learning rate",
        "seconds",
        "uJ a sample",
    ):
        table.add_column(name, justify="left" if name == "recipe" else "right")
    energies, results = contest.energies(), []
    for entry in entries:
        done = [Result(**r) for r in entry.results.values() if r]
        results += done
        lost = len(entry.results) - len(done)
        score = report.spread([r.test[-1] for r in done], 2 if "%" in measure else 4) if done else "diverged"
        joule = energies[entry.name]
        table.add_row(
            entry.name,
            *bits_of(contest.recipes[entry.name]).values(),
            score + (f" ({lost} diverged)" if done and lost else ""),
            "-" if entry.lr is None else f"{entry.lr:.3g}",
            f"{statistics.mean(r.seconds for r in done):.1f}" if done else "-",
            "-" if joule is None else f"{joule:.3g}",
        )
    console.print(table)
    (out / "recipes.json").write_text(
        json.dumps(
            {
                "title": title,
                "entries": [asdict(e) for e in entries],
                "energies": energies,
                "environment": environment(),
            },
            indent=1,
        )
    )
    if results:
        report.draw_curves(results, title, measure, out / "recipes.png")
    console.print(f"Wrote {out / 'recipes.json'} and {out / 'recipes.png'}.")
