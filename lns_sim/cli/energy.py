"""lns-sim energy: what a training iteration costs on the paper's processing element, by layer, pass and component."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from lns_sim.checks import check_choice, check_int
from lns_sim.cli.console import make_console
from lns_sim.cli.errors import user_errors
from lns_sim.cli.options import RECIPE_HELP, AccBits, Bits, Gamma, LutEntries, UpdateBits, chosen_recipe, made_by
from lns_sim.datapath import Datapath
from lns_sim.format import LNSFormat
from lns_sim.recipes import Recipe
from lns_sim.studies import models
from lns_sim.studies.energy import Energy, paper, picture
from lns_sim.studies.energy import energy as energy_of
from lns_sim.studies.energy.components import constants

# What models of ours take where nothing else is said: channels, height and width, or tokens.
_INPUTS = {
    "cnn": (1, 8, 8),
    "mlp": (1, 8, 8),
    "resnet20": (3, 32, 32),
    "resnet18": (3, 32, 32),
    "resnet18-imagenet": (3, 224, 224),
    "resnet50": (3, 224, 224),
    "gpt": (128,),
    "gpt256": (128,),
}
_TOKENS = ("gpt", "gpt256", "bert-base", "bert-large")  # models of these


def _sizes(text: str) -> tuple[int, ...]:
    """A shape such as "3x224x224" or "64"."""
    try:
        sizes = tuple(int(n) for n in text.split("x"))
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise ValueError(f"--input is a sample's shape such as 3x224x224, got {text!r}")
    return sizes


def _model(name: str, input: str | None, context: int | None, batch: int) -> tuple[nn.Module, Tensor]:
    """The model and a batch, on the meta device."""
    if input is not None and context is not None:
        raise ValueError("--input is for numbers, --context for tokens: give one of them")
    shape = _sizes(input) if input is not None else (context,) if context is not None else None
    tokens = context is not None if ":" in name else name in _TOKENS
    if input is not None and tokens:
        raise ValueError(f"{name} takes tokens: give --context")
    with torch.device("meta"):
        if ":" in name:
            if shape is None:
                raise ValueError(f"{name} needs --input (a sample's shape, e.g. 3x224x224) or --context (tokens)")
            model = made_by(name).to("meta")
        else:
            check_choice("model", name, (*models.NAMES, "bert-base", "bert-large"))
            shape = shape or _INPUTS.get(name, (paper.TOKENS,))
            classes = 256 if tokens else 1000 if shape[-1] >= 64 else 10
            model = paper.bert(name) if name.startswith("bert") else models.build(name, shape, classes)
        return model.eval(), torch.zeros(batch, *shape, dtype=torch.int64 if tokens else torch.float32)


def _print(found: Energy, title: str, console: Console, layers: bool) -> None:
    unit, scale = ("mJ", 1.0) if found.total() >= 0.01 else ("uJ", 1e3)
    table = Table(title=title, caption=f"{unit} a training iteration")
    for name in ("pass", "products", *found.formats):
        table.add_column(name, justify="left" if name == "pass" else "right")
    for name in dict.fromkeys(row.name for row in found.rows):
        products = sum(row.products for row in found.rows if row.name == name)
        table.add_row(
            name.replace("_", " "),
            f"{products:,}",
            *(f"{scale * sum(found.components(f, name).values()):.4g}" for f in found.formats),
        )
    table.add_row(
        "total", f"{found.products:,}", *(f"{scale * found.total(f):.4g}" for f in found.formats), style="bold"
    )
    table.add_row("fJ a product", "", *(f"{1e12 * found.total(f) / found.products:.1f}" for f in found.formats))
    console.print(table)
    parts = ", ".join(f"{name} {share / found.total():.0%}" for name, share in found.components().items())
    console.print(f"LNS: {parts}.")
    if layers:
        table = Table(title="by layer and pass: LNS")
        for name in ("layer", "pass", "products", "lanes used", unit):
            table.add_column(name, justify="left" if name in ("layer", "pass") else "right")
        for row in found.rows:
            table.add_row(
                row.layer or "(model)",
                row.name.replace("_", " "),
                f"{row.products:,}",
                f"{row.utilization:.0%}",
                f"{scale * sum(row.energy['LNS'].values()) * 1e-12:.4g}",
            )
        console.print(table)
    console.print(f"Calibrated: {found.calibrated}.")
    for note in found.extrapolated:
        console.print(f"Extrapolated: {note}.")
    if found.float_products:
        console.print(f"Not in it: {len(found.float_products)} products that run in float32.")


def _print_paper(found: dict[str, Energy], console: Console) -> None:
    table = Table(title="mJ a training iteration, batch 1: here / LNS-Madam (IEEE TC 2022)")
    table.add_column("model")
    for name in paper.TABLE["bert-base"]:
        table.add_column(name, justify="right")
    for model, row in paper.TABLE.items():
        table.add_row(
            model,
            *(
                f"{found[model].total(f):.2f} / {mj:.2f} ({found[model].total(f) / mj - 1:+.1%})"
                for f, mj in row.items()
            ),
        )
    console.print(table)


def energy(
    model: Annotated[
        str,
        typer.Argument(
            help=f"{', '.join(models.NAMES)}, bert-base, "
            "bert-large, or module:function, which returns a model; or paper: the table of "
            "LNS-Madam's paper beside this model's"
        ),
    ],
    input: Annotated[
        str | None, typer.Option(help="shape of a sample, e.g. 3x224x224", show_default="by model")
    ] = None,
    context: Annotated[int | None, typer.Option(help="tokens of a sample", show_default="by model", min=1)] = None,
    batch_size: Annotated[int, typer.Option(help="samples of the iteration")] = 1,
    recipe: Annotated[str, typer.Option(help=RECIPE_HELP)] = "lns-madam",
    bits: Bits = LNSFormat.bits,
    gamma: Gamma = LNSFormat.gamma,
    update_bits: UpdateBits = Recipe.update.bits,
    lut_entries: LutEntries = None,
    acc_bits: AccBits = Datapath.acc_bits,
    layers: Annotated[bool, typer.Option("--layers", help="a row for each layer and pass, too")] = False,
    out: Annotated[Path, typer.Option(help="directory for energy.png and energy.json")] = Path("runs/energy"),
) -> None:
    """Estimate the energy of a training iteration, beside FP8, FP16, FP32 and INT8 on the like hardware.

    Every product of the model's three passes is mapped to the paper's processing element; nothing is computed. What the
    numbers rest on is in docs/energy.md.
    """
    console = make_console()
    with user_errors():
        check_int("batch_size", batch_size, 1, None)
        if model == "paper":
            found = paper.reproduce()
            _print_paper(found, console)
            result = {name: e.to_dict() for name, e in found.items()}
        else:
            chosen = chosen_recipe(recipe, bits, gamma, update_bits, lut_entries, acc_bits)
            if chosen is None:
                raise ValueError("an energy needs a recipe that simulates products, got fp32")
            built, x = _model(model, input, context, batch_size)
            shape = "x".join(map(str, x.shape[1:]))
            title = f"{model}, {batch_size} x {shape}{' tokens' if x.dtype == torch.int64 else ''}"
            one = energy_of(built, x, recipe=chosen)
            _print(one, title, console, layers)
            result = one.to_dict()
        out.mkdir(parents=True, exist_ok=True)
        used = {name: vars(c) for name, c in constants().items()}
        (out / "energy.json").write_text(json.dumps({"model": model, "energy": result, "constants": used}, indent=1))
        written = [str(out / "energy.json")]
        if model != "paper":
            picture.draw(one, title, out / "energy.png")
            written.append(str(out / "energy.png"))
        console.print(f"Wrote {' and '.join(written)}.")
