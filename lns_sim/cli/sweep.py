"""lns-sim sweep: accuracy against energy, area or cycles over datapaths and formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from lns_sim.checks import check_device
from lns_sim.cli.built import TechnologyName
from lns_sim.cli.command import command, refuse
from lns_sim.cli.console import Output, counted
from lns_sim.cli.errors import interruptible
from lns_sim.cli.options import (
    Batch,
    Context,
    Data,
    Device,
    FirstSeed,
    FloatLr,
    FloatOptimizer,
    Lr,
    Model,
    PScale,
    Tokens,
    chosen_settings,
    simulating,
)
from lns_sim.environment import caption, provenance
from lns_sim.files import write_json
from lns_sim.studies.sweep import report, space
from lns_sim.studies.sweep.costs import COSTS
from lns_sim.studies.sweep.study import Sweep
from lns_sim.studies.training import data as datasets
from lns_sim.studies.training.report import spread
from lns_sim.studies.training.trainer import Settings, check_fit

DEFAULTS = Settings()


@command
def sweep(
    ctx: typer.Context,
    dimensions: Annotated[
        list[str],
        typer.Argument(
            help="what varies, e.g. acc_bits=16:24:4 forward.lut_entries=1,2,8; names: "
            f"bits, gamma, update_bits, {', '.join(space.SWEPT)}; of one pass: "
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
    batch_size: Batch = DEFAULTS.batch_size,
    lr: Lr = DEFAULTS.lr,
    p_scale: PScale = DEFAULTS.p_scale,
    float_optimizer: FloatOptimizer = None,
    float_lr: FloatLr = None,
    held_out: Annotated[
        float, typer.Option(help="share of the training set that points are judged on; the test set is shown beside")
    ] = 0.2,
    context: Context = None,
    tokens: Tokens = None,
    seed: FirstSeed = 0,
    seeds: Annotated[int, typer.Option(help="how many seeds a trial trains with", min=1)] = 3,
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
    out: Annotated[
        Path, typer.Option(help="folder for sweep.csv, sweep.json, pareto.png and .svg, and the storage")
    ] = Path("runs/sweep"),
    *,
    changes: dict,
    output: Output,
) -> None:
    """Train a model on many datapaths or formats and show which are the best compromises of accuracy and cost.

    The same command again goes on where the last one stopped; started several times, here or on other machines with the
    same --storage, it shares the work. A worker that is killed loses only the trial that it was running.
    """
    if sampler == "grid":
        refuse(ctx, ["trials"], "a grid tries every combination")
    chosen = space.parse(dimensions)
    refuse(ctx, changes.keys() & chosen.keys(), "the sweep varies it")
    base = simulating(recipe, changes, "a sweep")
    space.check_applies(chosen, base)
    settings = chosen_settings(
        data, model, float_optimizer, float_lr, epochs=epochs, batch_size=batch_size, lr=lr, p_scale=p_scale
    )
    check_device(device)
    dataset = datasets.load(data, context, tokens)
    check_fit(settings.model, dataset)
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
        held_out,
    )
    out.mkdir(parents=True, exist_ok=True)
    with interruptible(output, "finished trials are kept. The same command goes on."):
        _run(work, output)
    _show(work, out, output)


def _run(sweep: Sweep, output: Output) -> None:
    with output.progress("trials") as bar:
        task = bar.add_task("sweep", total=sweep.trials, completed=sweep.finished)

        def on_step(point, trainer) -> None:
            bar.update(task, description=f"{report.describe(point, sweep.space)}, epoch {trainer.epoch + 1}")

        def on_trial(trial) -> None:
            result = trial.user_attrs.get("none") or ", ".join(
                f"{n} {v:.4g}" for n, v in zip((sweep.criterion, *report.costs(sweep)), trial.values)
            )
            output.tell(f"trial {trial.number}: {report.describe(trial.params, sweep.space)}: {result}")
            bar.update(task, completed=sweep.finished)

        sweep.run(on_step, on_trial)


def _show(sweep: Sweep, out: Path, output: Output) -> None:
    title = sweep.settings.title(sweep.data)
    best = report.front(sweep)
    rows = [
        [
            str(trial.number),
            *(str(trial.params[k]) for k in sweep.space),
            *(spread(trial.user_attrs[kind], 2 if sweep.maximize else 4) for kind in ("held out", "tests")),
            *(f"{value:.4g}" for value in trial.values[1:]),
            f"{100 * trial.user_attrs['saturated']:.2g} %",
            f"{100 * trial.user_attrs['vanished']:.2g} %",
        ]
        for trial in best
    ]
    record = provenance(title=title, **json.loads(sweep.describe()), trials=report.trials(sweep))
    write_json(record, out / "sweep.json")
    report.write_csv(sweep, out / "sweep.csv")
    if not best:
        notes = [
            trial.user_attrs["none"] for trial in sweep.study.get_trials(deepcopy=False) if trial.user_attrs.get("none")
        ]
        raise ValueError(f"no result in {counted(sweep.finished, 'trial')}; the first: {notes[0]}")
    report.draw(sweep, title, caption(record), out / "pareto.png")
    output.table(
        f"{title}: best compromises",
        report.meaning(sweep),
        ["trial", *sweep.space, sweep.criterion, sweep.data.measure, *report.costs(sweep), "saturated", "vanished"],
        rows,
        spare=["vanished", "saturated", "trial", sweep.data.measure],
    )
    output.show(f"Wrote sweep.json, sweep.csv, pareto.png and pareto.svg to {out}: {counted(sweep.finished, 'trial')}.")
    output.result(record)
