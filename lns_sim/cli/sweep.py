"""lns-sim sweep: accuracy against energy, area or cycles over datapaths and formats."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from lns_sim import recipes
from lns_sim.checks import check_device
from lns_sim.cli.artefacts import caption
from lns_sim.cli.built import TechnologyName
from lns_sim.cli.console import make_console
from lns_sim.cli.errors import user_errors
from lns_sim.cli.options import Context, Data, Device, FloatLr, FloatOptimizer, Model, Tokens, chosen_settings
from lns_sim.studies.energy.technologies import get
from lns_sim.studies.sweep import report, space
from lns_sim.studies.sweep.costs import COSTS
from lns_sim.studies.sweep.study import Sweep
from lns_sim.studies.training import data as datasets
from lns_sim.studies.training.trainer import Settings, check_fit

DEFAULTS = Settings()


def sweep(
    dimensions: Annotated[
        list[str],
        typer.Argument(
            help="what varies, e.g. acc_bits=16:24:4 forward.lut_entries=1,2,8; names: "
            "bits, gamma, update_bits, vector_size, lut_entries, lut_bits, "
            "acc_bits, acc_lsb, headroom_bits, rounding, overflow, bin_bits, bin_overflow, bins; of one pass: "
            "forward., input_gradient., weight_gradient. before; of one tensor: "
            "activation.bits, weight.bits, error.bits, gradient.bits"
        ),
    ],
    data: Data = "digits",
    model: Model = None,
    recipe: Annotated[
        str, typer.Option(help="what the dimensions change: lns-madam or a file.toml (docs/recipes.md)")
    ] = "lns-madam",
    sampler: Annotated[str, typer.Option(help="grid (every combination), random or nsga2")] = "grid",
    trials: Annotated[
        int | None,
        typer.Option(
            help="of all workers together, for random and nsga2", min=1, show_default="as many as combinations"
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(help="passes over the training set")] = 5,
    batch_size: Annotated[int, typer.Option(help="samples per step")] = DEFAULTS.batch_size,
    lr: Annotated[float, typer.Option(help="LNS-Madam: octaves per unit of normalized gradient")] = DEFAULTS.lr,
    p_scale: Annotated[
        float, typer.Option(help="LNS-Madam: how far weights may grow, in root mean squares of the initial ones")
    ] = DEFAULTS.p_scale,
    float_optimizer: FloatOptimizer = None,
    float_lr: FloatLr = None,
    held_out: Annotated[
        float | None, typer.Option(help="test on this share of the training set instead of the test set")
    ] = None,
    context: Context = 128,
    tokens: Tokens = "byte",
    seed: Annotated[int, typer.Option(help="first seed", min=0)] = 0,
    seeds: Annotated[int, typer.Option(help="how many seeds a trial trains with", min=1)] = 1,
    storage: Annotated[
        str | None,
        typer.Option(
            help="a file, also on a network file system, or a database URL; workers that share it share the sweep",
            show_default="study.journal in --out",
        ),
    ] = None,
    study: Annotated[str, typer.Option(help="name of the sweep in the storage")] = "sweep",
    grace: Annotated[
        float,
        typer.Option(help="seconds without a sign of life after which another machine's trial is run again", min=1),
    ] = 600,
    cost: Annotated[
        list[str] | None, typer.Option(help=f"{', '.join(COSTS)}; may be given more than once", show_default="energy")
    ] = None,
    technology: TechnologyName = "paper",
    device: Device = "cpu",
    out: Annotated[Path, typer.Option(help="directory for sweep.csv, pareto.png and the storage")] = Path("runs/sweep"),
) -> None:
    """Train a model on many datapaths or formats and show which are the best compromises of accuracy and cost.

    The same command again goes on where the last one stopped; started several times, here or on other machines with the
    same --storage, it shares the work. A worker that is killed loses only the trial that it was running.
    """
    console = make_console()
    with user_errors():
        chosen = space.parse(dimensions)
        base = recipes.get(recipe)
        if base is None:
            raise ValueError("a sweep needs a recipe that simulates products, got fp32")
        settings = chosen_settings(
            data, model, float_optimizer, float_lr, epochs=epochs, batch_size=batch_size, lr=lr, p_scale=p_scale
        )
        check_device(device)
        dataset = datasets.load(data, context, tokens)
        check_fit(settings.model, dataset)
        if held_out is not None:
            dataset = dataset.held_out(held_out)
        out.mkdir(parents=True, exist_ok=True)
        work = Sweep(
            dataset,
            settings,
            base,
            chosen,
            list(range(seed, seed + seeds)),
            sampler,
            trials,
            storage or str(out / "study.journal"),
            study,
            device,
            grace,
            cost or ["energy"],
            technology,
        )
        try:
            _run(work, console)
        except KeyboardInterrupt:
            console.print("Interrupted; finished trials are kept. The same command goes on.")
            raise typer.Exit(130) from None
        _show(work, out, console)


def _run(sweep: Sweep, console: Console) -> None:
    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("trials"),
        TimeElapsedColumn(),
    ]
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("sweep", total=sweep.trials, completed=sweep.finished)

        def on_step(point, trainer) -> None:
            progress.update(task, description=f"{report.describe(point, sweep.space)}, epoch {trainer.epoch + 1}")

        def on_trial(trial) -> None:
            result = trial.user_attrs.get("none") or ", ".join(
                f"{n} {v:.4g}" for n, v in zip((sweep.data.measure, *report.costs(sweep)), trial.values)
            )
            progress.console.print(f"trial {trial.number}: {report.describe(trial.params, sweep.space)}: {result}")
            progress.update(task, completed=sweep.finished)

        sweep.run(on_step, on_trial)


def _show(sweep: Sweep, out: Path, console: Console) -> None:
    title = f"{sweep.settings.model} on {sweep.data.name}, {sweep.settings.epochs} epochs"
    best = report.front(sweep)
    table = Table(title=f"{title}: best compromises", caption=report.meaning(sweep))
    for name in ("trial", *sweep.space, sweep.data.measure, *report.costs(sweep), "saturated", "vanished"):
        table.add_column(name, justify="right")
    for trial in best:
        known = trial.user_attrs
        table.add_row(
            str(trial.number),
            *(str(trial.params[k]) for k in sweep.space),
            *(f"{value:.4g}" for value in trial.values),
            f"{100 * known['saturated']:.2g} %",
            f"{100 * known['vanished']:.2g} %",
        )
    console.print(table)
    report.write_csv(sweep, out / "sweep.csv")
    report.draw(sweep, title, caption(get(sweep.technology).describe()), out / "pareto.png")
    console.print(f"Wrote {out / 'sweep.csv'} and {out / 'pareto.png'}: {sweep.finished} trials.")
