"""lns-sim train: train a classifier or a small language model by one or several recipes and compare them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from lns_sim.checks import check_device
from lns_sim.cli.console import make_console
from lns_sim.cli.errors import user_errors
from lns_sim.cli.options import (
    RECIPE_HELP,
    AccBits,
    Bits,
    Context,
    Data,
    Device,
    FloatLr,
    FloatOptimizer,
    Gamma,
    LutEntries,
    Model,
    Tokens,
    UpdateBits,
    chosen_recipes,
    chosen_settings,
)
from lns_sim.datapath import Datapath
from lns_sim.format import LNSFormat
from lns_sim.recipes import Recipe
from lns_sim.studies.training import data as datasets
from lns_sim.studies.training import report
from lns_sim.studies.training.experiment import Experiment
from lns_sim.studies.training.trainer import Settings, Trainer, check_fit

DEFAULTS = Settings()


def train(
    data: Data = "digits",
    model: Model = None,
    recipe: Annotated[
        list[str] | None, typer.Option(help=f"{RECIPE_HELP}; repeat for several", show_default="the first three")
    ] = None,
    epochs: Annotated[int, typer.Option(help="passes over the training set")] = DEFAULTS.epochs,
    batch_size: Annotated[int, typer.Option(help="samples per step")] = DEFAULTS.batch_size,
    lr: Annotated[float, typer.Option(help="LNS-Madam: octaves per unit of normalized gradient")] = DEFAULTS.lr,
    float_optimizer: FloatOptimizer = None,
    float_lr: FloatLr = None,
    p_scale: Annotated[
        float, typer.Option(help="LNS-Madam: how far weights may grow, in root mean squares of the initial ones")
    ] = DEFAULTS.p_scale,
    weight_decay: Annotated[float, typer.Option(help="of float parameters")] = DEFAULTS.weight_decay,
    warmup: Annotated[float, typer.Option(help="share of steps in which learning rates rise")] = DEFAULTS.warmup,
    fine_tune: Annotated[
        int, typer.Option(help="so many of the last epochs in float32 (recipes with float32 weights)", min=0)
    ] = DEFAULTS.fine_tune,
    augment: Annotated[str, typer.Option(help="none or crop-flip")] = DEFAULTS.augment,
    context: Context = 128,
    tokens: Tokens = "byte",
    seed: Annotated[int, typer.Option(help="first seed", min=0)] = 0,
    seeds: Annotated[int, typer.Option(help="how many seeds, counted from --seed", min=1)] = 3,
    bits: Bits = LNSFormat.bits,
    gamma: Gamma = LNSFormat.gamma,
    update_bits: UpdateBits = Recipe.update.bits,
    lut_entries: LutEntries = None,
    acc_bits: AccBits = Datapath.acc_bits,
    counters: Annotated[bool, typer.Option(help="count saturations and vanished products")] = DEFAULTS.counters,
    held_out: Annotated[
        float | None, typer.Option(help="test on this share of the training set instead of the test set: for tuning")
    ] = None,
    device: Device = "cpu",
    out: Annotated[Path, typer.Option(help="directory for checkpoint.pt, run.json and curves.png")] = Path(
        "runs/train"
    ),
    resume: Annotated[bool, typer.Option("--resume", help="go on from the checkpoint in --out")] = False,
) -> None:
    """Train a classifier or a language model by several recipes; compare results, time and what happened in the
    datapath.

    By default a small CNN learns scikit-learn's handwritten digits three times: in float32 with SGD, by LNS-Madam with
    fake quantization, and by LNS-Madam with every product on the simulated 8-bit datapath. With --data text a small GPT
    learns Python.
    """
    console = make_console()
    with user_errors():
        settings = chosen_settings(
            data,
            model,
            float_optimizer,
            float_lr,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            augment=augment,
            p_scale=p_scale,
            weight_decay=weight_decay,
            warmup=warmup,
            fine_tune=fine_tune,
            counters=counters,
        )
        names = recipe or ["fp32", "lns-madam-fake-quant", "lns-madam"]
        chosen = chosen_recipes(names, bits, gamma, update_bits, lut_entries, acc_bits)
        check_device(device)
        dataset = datasets.load(data, context, tokens)
        check_fit(settings.model, dataset)
        if held_out is not None:
            dataset = dataset.held_out(held_out)
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):  # refused now rather than after an epoch
            pass
        experiment = Experiment(
            dataset, chosen, list(range(seed, seed + seeds)), settings, out / "checkpoint.pt", device
        )
        if resume:
            experiment.resume()
        try:
            _run(experiment, console)
        except KeyboardInterrupt:
            saved = experiment.checkpoint.exists()
            console.print(
                f"Interrupted. Finished epochs are in {experiment.checkpoint}; go on with --resume."
                if saved
                else "Interrupted before the first epoch ended; nothing was saved."
            )
            raise typer.Exit(130) from None
        _show(experiment, out, console)


def _run(experiment: Experiment, console: Console) -> None:
    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    ]
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("training", total=experiment.steps, completed=experiment.steps_done)

        def on_step(trainer: Trainer) -> None:
            r = trainer.result
            measure = trainer.data.measure
            tested = (
                "" if not r.test else f", {r.test[-1]:.1f} %" if "%" in measure else f", {measure} {r.test[-1]:.3f}"
            )
            progress.update(
                task, advance=1, description=f"{r.recipe}, seed {r.seed}, epoch {trainer.epoch + 1}{tested}"
            )

        experiment.run(on_step)


def _show(experiment: Experiment, out: Path, console: Console) -> None:
    s = experiment.settings
    title = f"{s.model} on {experiment.data.name}, {s.epochs} epochs"
    table = Table(
        title=title,
        caption="mean ± standard deviation over seeds; seconds, MACs and counts of one run, tests included; saturated: "
        "share of accumulations; vanished: share of products below the accumulator's LSB",
    )
    measure = experiment.data.measure
    for i, name in enumerate(report.header(measure)):
        table.add_column(name, justify="left" if i == 0 else "right")
    for row in report.rows(experiment.results, measure):
        table.add_row(*row)
    console.print(table)
    for name, group in report.by_recipe(experiment.results).items():
        if group[0].sample:
            console.print(f"[bold]{name} writes:[/bold]")
            console.print(group[0].sample, markup=False, highlight=False)
    report.write_json(experiment, out / "run.json")
    report.draw_curves(experiment.results, title, measure, out / "curves.png")
    console.print(f"Wrote {out / 'run.json'}, {out / 'curves.png'} and {out / 'checkpoint.pt'}.")
