"""lns-sim compare: the same batch in float32, fake-quant and bit-exact, as a table, a picture and a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import typer
from torch import nn

from lns_sim import recipes, weights
from lns_sim.checks import check_device, check_int
from lns_sim.cli.command import command, flag
from lns_sim.cli.console import Output, counted
from lns_sim.cli.options import RECIPE_HELP, Context, Device, Force, Tokens, check_folder, chosen_recipes, run_folder
from lns_sim.environment import provenance
from lns_sim.files import write_atomically, write_json
from lns_sim.nn import convert, to_float
from lns_sim.recipes import ModelRecipe, Recipe
from lns_sim.studies import models
from lns_sim.studies.compare import compare as run_comparison
from lns_sim.studies.compare import page, picture
from lns_sim.studies.sweep.space import changed
from lns_sim.studies.training import Data, Trained, load
from lns_sim.studies.training import data as datasets
from lns_sim.studies.training.trainer import check_fit, logits_of

# Columns that a narrow terminal has no room for; the page has all.
_SPARE = ("MACs", "largest difference", "zeros", "clipped", "underflowed", "bit-exact dB", "vanished", "#", "saturated")


def _data(source: str | None, context: int | None, tokens: str | None, trained: Trained | None) -> Data:
    """The data set asked for, else the checkpoint's, else digits.

    Raises:
        ValueError: the checkpoint's is not what it was.
    """
    if source is not None or trained is None or context is not None or tokens is not None:
        return datasets.load(source or "digits", context, tokens)
    found = datasets.load(**trained.data["origin"])
    if found.fingerprint != trained.data["fingerprint"]:
        raise ValueError(f"{found.name} is not the data of the training any more; --data says which to take")
    return found


def _recipe(name: str | None, changes: dict[str, Any], trained: Trained | None) -> Recipe | ModelRecipe:
    """The recipe asked for, else the checkpoint's, else lns-madam."""
    if name is None and trained is not None and trained.recipe is not None:
        return changed([trained.recipe], changes, flag)[0]
    return chosen_recipes([name or "lns-madam"], changes)[0]


def _model(name: str | None, data: Data, recipe, checkpoint: Path | None, trained: Trained | None) -> nn.Module:
    """The model in float32, with the checkpoint's weights where there is one."""
    if trained is not None:
        return to_float(trained.model)
    if name is None:
        raise ValueError("compare needs a model, or a checkpoint of lns-sim train, which knows its own")
    check_fit(name, data)
    model = models.build(name, data.input_shape, data.classes)
    if checkpoint is None:
        return model
    converted = convert(model, recipe)
    weights.load(converted, checkpoint)
    return to_float(converted)


@command
def compare(
    model: Annotated[
        str | None,
        typer.Argument(
            help=f"{', '.join(models.NAMES)}, or module:function, which returns a model",
            show_default="the checkpoint's",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="digits, npz:PATH, openml:NAME, text, text:PATH or module:function, as of lns-sim train",
            show_default="the checkpoint's, or digits",
        ),
    ] = None,
    recipe: Annotated[str | None, typer.Option(help=RECIPE_HELP, show_default="the checkpoint's, or lns-madam")] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="RECIPE-seedN.pt of lns-sim train, or a weight file", show_default="initial weights"),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="samples of the training set")] = 64,
    context: Context = None,
    tokens: Tokens = None,
    seed: Annotated[int, typer.Option(help="of initial weights and the choice of samples", min=0)] = 0,
    device: Device = "cpu",
    out: Annotated[
        Path | None,
        typer.Option(
            help="folder for report.html, compare.json, compare.png and .svg", show_default="runs/compare/1 and so on"
        ),
    ] = None,
    force: Force = False,
    *,
    changes: dict,
    output: Output,
) -> None:
    """Show what quantization and the datapath do to one batch, layer by layer and pass by pass.

    The batch runs through the model, forward and backward, in float32, by the recipe's codes with float32 products
    (fake-quant), and on the simulated datapath. The report tells where the datapath first matters.
    """
    check_folder(out, force)
    check_device(device)
    trained = None
    if checkpoint is not None and checkpoint.suffix != ".safetensors":
        trained = load(checkpoint, model)
    chosen = _recipe(recipe, changes, trained)
    dataset = _data(data, context, tokens, trained)
    check_int("batch_size", batch_size, 1, len(dataset.x_train))
    torch.manual_seed(seed)
    built = _model(model, dataset, chosen, checkpoint, trained)
    name = model or trained.settings.model
    picked = torch.randperm(len(dataset.x_train), generator=torch.Generator().manual_seed(seed))[:batch_size]
    x, y = dataset.x_train[picked].to(device), dataset.y_train[picked].to(device)
    found = run_comparison(
        built.to(device), lambda m: F.cross_entropy(logits_of(m(x)).flatten(0, -2), y.flatten()), chosen
    )

    title = f"{name} on {dataset.name}, {counted(len(picked), 'sample')}"
    made = provenance(
        model=name,
        checkpoint=None if checkpoint is None else str(checkpoint),
        recipe=recipes.to_plain(chosen),
        seed=seed,
        data=dataset.describe(),
        device=device,
    )
    record = {"title": title, **found.to_dict(), **made}
    folder = run_folder(out, "compare", force)
    write_json(record, folder / "compare.json")
    picture.draw(found, folder / "compare.png", title, made)
    write_atomically(lambda file: file.write(page.html(found, title, made).encode()), folder / "report.html")
    shown = page.columns(found)
    datapath = ", and of the datapath alone against float32 products of the same codes" if found.simulated else ""
    output.table(
        f"{title}: {found.recipe}",
        f"signal-to-noise against float32{datapath}; shares of accumulations, products and both operands' codes",
        [page.HEADER[i] for i in shown],
        [[page.cells(number, row)[i] for i in shown] for number, row in enumerate(found.rows, start=1)],
        width=190,
        left=["layer", "pass"],
        spare=_SPARE,
        marked=[number for number, row in enumerate(found.rows) if row.margin < 0 or row.saturated],
    )
    losses = ", ".join(f"{run} {value:.6g}" for run, value in found.losses.items())
    of = f", weights of {checkpoint}" if checkpoint else f", initial weights of seed {seed}"
    output.show(f"{found.verdict()}\nLoss: {losses}.\n{found.recipe}: {found.formats}{of}.")
    output.show(f"Wrote report.html, compare.json, compare.png and compare.svg to {folder}.")
    output.result(record)
