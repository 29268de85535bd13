"""lns-sim compare: the same batch in float32, fake-quant and bit-exact, as a table, a picture and a page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from rich.table import Table
from torch import nn

from lns_sim import weights
from lns_sim.checks import check_device, check_int
from lns_sim.cli.console import make_console
from lns_sim.cli.errors import user_errors
from lns_sim.cli.options import (
    RECIPE_HELP,
    AccBits,
    Bits,
    Context,
    Data,
    Device,
    Gamma,
    LutEntries,
    Tokens,
    UpdateBits,
    chosen_recipe,
    made_by,
)
from lns_sim.datapath import Datapath
from lns_sim.environment import environment
from lns_sim.format import LNSFormat
from lns_sim.nn import LNSWeight, convert, to_float
from lns_sim.recipes import Recipe
from lns_sim.studies import models
from lns_sim.studies.compare import Comparison, page, picture
from lns_sim.studies.compare import compare as run_comparison
from lns_sim.studies.training import data as datasets
from lns_sim.studies.training.data import Data as DataSet
from lns_sim.studies.training.experiment import read_checkpoint
from lns_sim.studies.training.trainer import check_fit

_WIDE = ("MACs", "largest difference", "clipped", "zeros")  # columns that a narrow terminal has no room for


def _built(name: str, data: DataSet) -> nn.Module:
    """A model of ours by name, or what a function given as module:function returns."""
    if ":" in name:
        return made_by(name)
    check_fit(name, data)
    return models.build(name, data.input_shape, data.classes)


def _with_weights(model: nn.Module, path: Path, recipe) -> nn.Module:
    """The model with the weights of an `lns-sim train` checkpoint (its last run's) or a weight file, in float32."""
    if path.suffix == ".safetensors":
        converted = convert(model, recipe)
        weights.load(converted, path)
        return to_float(converted)
    trainer = read_checkpoint(path)["trainer"]
    state = trainer.get("model") if isinstance(trainer, dict) else None
    if not isinstance(state, dict):
        raise ValueError(f"{path} holds no model")
    values = {k: v.dequantize() if isinstance(v, LNSWeight) else v for k, v in state.items()}
    try:
        model.load_state_dict(values)
    except (RuntimeError, AttributeError) as error:  # other names and shapes, or no tensors
        raise ValueError(f"{path} is of another model: {str(error).splitlines()[-1].strip()}") from None
    return model


def _print_table(found: Comparison, title: str) -> None:
    """All columns where they fit; a narrow terminal leaves some to the page."""
    console = make_console(width=190)
    shown = [i for i, name in enumerate(page.HEADER) if console.width >= 170 or name not in _WIDE]
    table = Table(
        title=title,
        caption="signal-to-noise against float32, and of the datapath alone against float32 products of the "
        "same codes; shares of accumulations, products and both operands' codes",
    )
    for i in shown:
        table.add_column(page.HEADER[i], justify="left" if i in (1, 2) else "right", no_wrap=i in (1, 2))
    for number, row in enumerate(found.rows, start=1):
        cells = page.cells(number, row)
        table.add_row(*(cells[i] for i in shown), style="red" if row.margin < 0 or row.saturated else None)
    console.print(table)


def compare(
    model: Annotated[str, typer.Argument(help=f"{', '.join(models.NAMES)}, or module:function, which returns a model")],
    data: Data = "digits",
    recipe: Annotated[str, typer.Option(help=RECIPE_HELP)] = "lns-madam",
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="of lns-sim train, or a weight file (.safetensors)", show_default="initial weights"),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="samples of the training set")] = 64,
    context: Context = 128,
    tokens: Tokens = "byte",
    seed: Annotated[int, typer.Option(help="of initial weights and the choice of samples", min=0)] = 0,
    bits: Bits = LNSFormat.bits,
    gamma: Gamma = LNSFormat.gamma,
    update_bits: UpdateBits = Recipe.update.bits,
    lut_entries: LutEntries = None,
    acc_bits: AccBits = Datapath.acc_bits,
    device: Device = "cpu",
    out: Annotated[Path, typer.Option(help="directory for report.html, compare.png and compare.json")] = Path(
        "runs/compare"
    ),
) -> None:
    """Show what quantization and the datapath do to one batch, layer by layer and pass by pass.

    The batch runs through the model, forward and backward, in float32, by the recipe's codes with float32 products
    (fake-quant), and on the simulated datapath. The report tells where the datapath first matters.
    """
    console = make_console()
    with user_errors():
        chosen = chosen_recipe(recipe, bits, gamma, update_bits, lut_entries, acc_bits)
        check_device(device)
        check_int("batch_size", batch_size, 1, None)
        dataset = datasets.load(data, context, tokens)
        torch.manual_seed(seed)
        built = _built(model, dataset)
        if checkpoint is not None:
            built = _with_weights(built, checkpoint, chosen)
        out.mkdir(parents=True, exist_ok=True)
        picked = torch.randperm(len(dataset.x_train), generator=torch.Generator().manual_seed(seed))[:batch_size]
        x, y = dataset.x_train[picked].to(device), dataset.y_train[picked].to(device)

        def loss(m: nn.Module) -> torch.Tensor:
            output = m(x)
            logits = getattr(output, "logits", output)  # as transformers' models return them
            return F.cross_entropy(logits.flatten(0, -2), y.flatten())

        with console.status("three runs of the batch"):
            found = run_comparison(built.to(device), loss, chosen)
        title = f"{model} on {dataset.name}, {len(picked)} samples"
        _print_table(found, f"{title}: {found.recipe}")
        losses = ", ".join(f"{run} {value:.6g}" for run, value in found.losses.items())
        console.print(f"{found.verdict()}\nLoss: {losses}.")
        known = environment()
        shown = {k: str(known[k]) for k in ("lns_sim", "torch", "python", "cpu", "isa")} | {
            "gpus": ", ".join(known["gpus"]) or "none"
        }
        (out / "compare.json").write_text(
            json.dumps({"title": title, **found.to_dict(), "environment": known}, indent=1)
        )
        picture.draw(found, out / "compare.png")
        (out / "report.html").write_text(page.html(found, title, shown), encoding="utf-8")
        console.print(f"Wrote {out / 'report.html'}, {out / 'compare.png'} and {out / 'compare.json'}.")
