"""lns-sim train: train a classifier or a small language model by one or several recipes and compare them."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from lns_sim import recipes
from lns_sim.checks import check_device, check_same
from lns_sim.cli.command import command, flag, given, refuse
from lns_sim.cli.console import Output, counted
from lns_sim.cli.errors import interruptible
from lns_sim.cli.options import (
    RECIPE_HELP,
    Batch,
    Context,
    Data,
    Device,
    FirstSeed,
    FloatLr,
    FloatOptimizer,
    Force,
    Lr,
    Model,
    PScale,
    Tokens,
    chosen_recipes,
    chosen_settings,
    run_folder,
)
from lns_sim.files import numbered
from lns_sim.studies.contest import has_codes, learns_by
from lns_sim.studies.training import data as datasets
from lns_sim.studies.training import ranks, report
from lns_sim.studies.training.experiment import METRICS, RECORD, Experiment, read_record
from lns_sim.studies.training.tensorboard import Events, check_tensorboard
from lns_sim.studies.training.trainer import Settings, Trainer, check_augment, check_fit, check_precision, check_runs

DEFAULTS = Settings()
FIRST_THREE = ["fp32", "lns-madam-fake-quant", "lns-madam"]


@command
def train(
    ctx: typer.Context,
    data: Data = "digits",
    model: Model = None,
    recipe: Annotated[
        list[str] | None, typer.Option(help=f"{RECIPE_HELP}; repeat for several", show_default="the first three")
    ] = None,
    epochs: Annotated[
        int, typer.Option(help="passes over the training set, or see --epoch-samples; with --resume more than before")
    ] = DEFAULTS.epochs,
    epoch_samples: Annotated[
        int, typer.Option(help="so many samples are an epoch, going on through the training set; 0: all of it", min=0)
    ] = DEFAULTS.epoch_samples,
    test_samples: Annotated[
        int, typer.Option(help="so many of the test set, evenly spread over it, test; 0: all", min=0)
    ] = DEFAULTS.test_samples,
    batch_size: Batch = DEFAULTS.batch_size,
    micro_batches: Annotated[
        int | None,
        typer.Option(
            help="equal parts of a batch whose gradients are averaged, one after another or on several processes",
            show_default="1, or as many as there are processes",
        ),
    ] = None,
    precision: Annotated[
        str, typer.Option(help="of fp32's products: float32, tf32, or bf16 (torch's autocast)")
    ] = DEFAULTS.precision,
    lr: Lr = DEFAULTS.lr,
    float_optimizer: FloatOptimizer = None,
    float_lr: FloatLr = None,
    p_scale: PScale = DEFAULTS.p_scale,
    turn_below: Annotated[
        float | None,
        typer.Option(
            help="LNS-Madam: weights so many octaves below that root mean square take the other sign",
            show_default="never",
        ),
    ] = DEFAULTS.turn_below,
    beta1: Annotated[
        float, typer.Option(help="LNS-Madam: decay of a running mean of gradients that takes their place; 0: none")
    ] = DEFAULTS.beta1,
    weight_decay: Annotated[float, typer.Option(help="of float parameters")] = DEFAULTS.weight_decay,
    warmup: Annotated[float, typer.Option(help="share of steps in which learning rates rise")] = DEFAULTS.warmup,
    schedule: Annotated[
        str, typer.Option(help="how learning rates fall: cosine, linear, or step (by --decay after each third)")
    ] = DEFAULTS.schedule,
    decay: Annotated[float, typer.Option(help="factor of a step of the schedule step")] = DEFAULTS.decay,
    fine_tune: Annotated[
        int,
        typer.Option(help="so many of the last epochs quantize weights alone (recipes with float32 weights)", min=0),
    ] = DEFAULTS.fine_tune,
    fine_tune_lr: Annotated[
        float, typer.Option(help="peak learning rate of these epochs, in units of the learning rate")
    ] = DEFAULTS.fine_tune_lr,
    augment: Annotated[str, typer.Option(help="none or crop-flip")] = DEFAULTS.augment,
    context: Context = None,
    tokens: Tokens = None,
    seed: FirstSeed = 0,
    seeds: Annotated[int, typer.Option(help="how many seeds, counted from --seed", min=1)] = 3,
    no_counters: Annotated[
        bool, typer.Option("--no-counters", help="do not count saturations and vanished products")
    ] = False,
    held_out: Annotated[
        float | None, typer.Option(help="test on this share of the training set instead of the test set: for tuning")
    ] = None,
    device: Device = "cpu",
    out: Annotated[
        Path | None,
        typer.Option(
            help="folder for run.json, metrics.jsonl, curves.png and .svg, and a checkpoint of each recipe and seed",
            show_default="runs/train/1 and so on",
        ),
    ] = None,
    force: Force = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on in --out, or the newest of runs/train; all else is known there")
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="write events for TensorBoard, too (needs the library tensorboard)")
    ] = False,
    *,
    changes: dict,
    output: Output,
) -> None:
    """Train a classifier or a language model by several recipes; compare results, time and what happened in the
    datapath.

    By default a small CNN learns scikit-learn's handwritten digits three times: in float32 with SGD, by LNS-Madam with
    fake quantization, and by LNS-Madam with every product on the simulated 8-bit datapath. With --data text a small GPT
    learns Python.

    On several GPUs: torchrun --nproc-per-node N -m lns_sim train --device cuda ... shares each batch and, by FSDP2, the
    weights among N processes, with the codes of one process and --micro-batches N.
    """
    check_device(device)
    device = ranks.join(device)
    if not ranks.first():
        output = Output(quiet=True)
    if tensorboard:
        check_tensorboard()
    if resume and force:
        raise ValueError("--resume goes on with what lies in the folder, --force writes over it: give one of them")
    if resume:
        experiment = _resumed(ctx, out, device, changes)
    else:
        settings = chosen_settings(
            data,
            model,
            float_optimizer,
            float_lr,
            epochs=epochs,
            batch_size=batch_size,
            micro_batches=ranks.count() if micro_batches is None else micro_batches,
            lr=lr,
            augment=augment,
            p_scale=p_scale,
            turn_below=turn_below,
            beta1=beta1,
            weight_decay=weight_decay,
            warmup=warmup,
            schedule=schedule,
            decay=decay,
            fine_tune=fine_tune,
            fine_tune_lr=fine_tune_lr,
            counters=not no_counters,
            epoch_samples=epoch_samples,
            test_samples=test_samples,
            precision=precision,
        )
        chosen = chosen_recipes(recipe or FIRST_THREE, changes)
        check_precision(precision, chosen, device)
        if not any(learns_by(r) == "lr" for r in chosen):
            refuse(ctx, ("lr", "p_scale"), "no recipe here learns by multiplicative updates")
        if not any(has_codes(r) for r in chosen):
            refuse(ctx, ("turn_below", "beta1"), "no recipe here has weights that are codes")
        dataset = datasets.load(data, context, tokens, held_out)
        check_fit(settings.model, dataset)
        check_augment(augment, dataset)
        all_seeds = list(range(seed, seed + seeds))
        check_runs(dataset, chosen, all_seeds, settings, device)  # before there is a folder
        folder = ranks.from_first(lambda: run_folder(out, "train", force))
        experiment = Experiment(dataset, chosen, all_seeds, settings, folder, device, overwrite=force)
    if ranks.first():
        with tempfile.TemporaryFile(dir=experiment.folder):  # refused now rather than after an epoch
            pass
    with interruptible(output, f"finished epochs are kept: lns-sim train --resume --out {experiment.folder}"):
        _run(experiment, output, Events(experiment.folder / "tensorboard") if tensorboard and ranks.first() else None)
    if ranks.first():
        _show(experiment, output)
    ranks.leave()


def _resumed(ctx: typer.Context, out: Path | None, device: str, changes: dict) -> Experiment:
    """The experiment of a folder, as its record tells it, and perhaps with more epochs.

    Raises:
        ValueError: an option was given that says otherwise.
        FileNotFoundError: there is none.
    """
    earlier = numbered(Path("runs/train"))
    if out is None and not earlier:
        raise FileNotFoundError("there is no runs/train/1 to go on with; --out says where")
    folder = earlier[-1] if out is None else out
    record = read_record(folder)
    settings, origin = dataclasses.asdict(Settings(**record["settings"])), record["data"]["origin"]
    asked = given(ctx)
    if not origin:
        raise ValueError(f"{folder} was trained in Python, on data that no option names: go on there")
    seeds = list(dict.fromkeys(seed for _, seed in record["runs"]))
    known = {name: settings[name] for name in settings if name != "epochs"}
    known |= {"no_counters": not settings["counters"], "data": origin["source"], "seed": seeds[0], "seeds": len(seeds)}
    known |= {name: origin.get(name) for name in ("context", "tokens", "held_out")}
    differ = [
        f"{flag(name)} was {known[name]}, not {value}"
        for name, value in asked.items()
        if name in known and value != known[name]
    ]
    if differ:
        raise ValueError(f"{folder} was made with other settings: {', '.join(differ)}")
    chosen = [recipes.from_plain(plain) for plain, seed in record["runs"] if seed == seeds[0]]
    if changes or "recipe" in asked:
        others = chosen_recipes(asked.get("recipe", FIRST_THREE), changes)
        check_same(*(list(map(recipes.to_plain, r)) for r in (chosen, others)), f"{folder} has other recipes")
    new = Settings(**{**settings, "epochs": asked.get("epochs", settings["epochs"])})
    experiment = Experiment(datasets.load(**origin), chosen, seeds, new, folder, device)
    experiment.resume()
    return experiment


def _run(experiment: Experiment, output: Output, events: Events | None) -> None:
    measure = experiment.data.measure
    with output.progress("steps") as bar:
        task = bar.add_task("training", total=experiment.steps, completed=experiment.steps_done)
        begun = time.perf_counter()

        def on_step(trainer: Trainer) -> None:
            r = trainer.result
            bar.update(task, advance=1, description=f"{r.recipe}, seed {r.seed}, epoch {trainer.epoch + 1}")

        def on_epoch(trainer: Trainer) -> None:
            nonlocal begun
            r, now = trainer.result, time.perf_counter()
            if events:
                events.epoch_ended(trainer)
            output.tell(
                f"{r.recipe}, seed {r.seed}, epoch {trainer.epoch}/{experiment.settings.epochs}: "
                f"loss {r.loss[-1]:.4g}, {measure} {r.test[-1]:.4g}, {now - begun:.1f} s"
            )
            begun = now

        experiment.run(on_step, on_epoch)


def _show(experiment: Experiment, output: Output) -> None:
    measure, folder = experiment.data.measure, experiment.folder
    title = experiment.settings.title(experiment.data)
    report.draw_curves(
        experiment.results, title, measure, folder / "curves.png", experiment.record, experiment.tokens_per_epoch
    )
    output.table(
        title,
        "mean ± standard deviation over seeds; seconds, MACs and counts of one run, tests included; saturated: share "
        "of accumulations and bins; vanished: share of products below the accumulator's LSB",
        report.header(measure),
        report.rows(experiment.results, measure),
        left=["recipe"],
        spare=["weight bytes", "MACs simulated", "seconds"],
    )
    output.show(*report.gpu_lines(experiment.results))
    for name, group in report.by_recipe(experiment.results).items():
        if group[0].sample:
            output.show(f"{name} writes:\n{group[0].sample}", plain=True)
    kept = counted(len(experiment.runs), "checkpoint")
    output.show(f"Wrote {RECORD}, {METRICS}, curves.png, curves.svg and {kept} to {folder}.")
    output.result(experiment.record)
