"""lns-sim energy: what a training iteration costs on the paper's processing element, by layer, pass and component."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lns_sim import recipes
from lns_sim.cli.built import BatchSize, Input, ModelName, TechnologyName, TokensOfSample, build
from lns_sim.cli.command import command, given, refuse
from lns_sim.cli.console import Output, counted
from lns_sim.cli.options import RECIPE_HELP, Force, check_folder, run_folder, simulating
from lns_sim.environment import caption, provenance
from lns_sim.files import write_json
from lns_sim.recipes import PASSES
from lns_sim.studies.energy import Energy, paper, picture
from lns_sim.studies.energy import energy as energy_of
from lns_sim.studies.energy.components import constants
from lns_sim.studies.energy.technologies import get
from lns_sim.studies.energy.technology import USUAL


def _print(found: Energy, title: str, output: Output, layers: bool) -> None:
    unit, scale = ("mJ", 1.0) if found.total() >= 0.01 else ("uJ", 1e3)
    small, each = ("fJ", 1e12) if 1e12 * found.total() < 1e4 * found.products else ("pJ", 1e9)
    each /= found.products
    names = [name for name in PASSES if any(row.name == name for row in found.rows)]
    products = [sum(row.products for row in found.rows if row.name == n) for n in names]
    rows = [["products", *(f"{n:.3g}" for n in (*products, found.products)), "", ""]]
    for f in found.formats:
        by_pass = [f"{scale * sum(found.components(f, n).values()):.4g}" for n in names]
        total = found.total(f)
        rows.append([f, *by_pass, f"{scale * total:.4g}", f"{each * total:,.1f}", f"{total / found.total():.2f}"])
    output.table(
        title,
        f"{unit} a training iteration, technology {found.technology['name']}",
        ["", *(n.replace("_", " ") for n in names), "total", f"{small} a product", "to LNS"],
        rows,
        left=[""],
        sections=[0],
    )
    shares = {name: mj / found.total() for name, mj in found.components().items()}
    output.show(f"LNS: {', '.join(f'{name} {share:.0%}' for name, share in shares.items() if share >= 0.005)}.")
    if layers:
        _print_layers(found, output, unit, scale)
    for line in found.basis():
        output.show(line)
    if found.float_products:
        output.show(f"Not in it: {counted(len(found.float_products), 'product')} that run in float32.")


def _print_layers(found: Energy, output: Output, unit: str, scale: float) -> None:
    rows = []
    for row in found.rows:
        mj = sum(row.energy["LNS"].values()) * 1e-12
        rows.append(
            [
                row.layer or "(model)",
                row.name.replace("_", " "),
                f"{row.products:,}",
                f"{row.products / found.products:.1%}",
                f"{row.utilization:.0%}",
                f"{scale * mj:.4g}",
                f"{mj / found.total():.1%}",
            ]
        )
    header = ["layer", "pass", "products", "of products", "lanes used", unit, "of energy"]
    output.table("by layer and pass: LNS", "", header, rows, left=["layer", "pass"], spare=["products"])


def _print_paper(found: dict[str, Energy], output: Output) -> None:
    rows = []
    for model, printed in paper.TABLE.items():
        here = {f: found[model].total(f) for f in printed}
        rows += [
            [f"{model}{'*' * (model in paper.RECALLED)}", "here", *(f"{mj:.2f}" for mj in here.values())],
            ["", "paper", *(f"{mj:.2f}" for mj in printed.values())],
            ["", "deviation", *(f"{here[f] / mj - 1:+.1%}" for f, mj in printed.items())],
        ]
    output.table(
        "mJ a training iteration, batch 1",
        "paper: LNS-Madam (IEEE TC 2022); * recalled: nobody checked these in print",
        ["model", "", *paper.TABLE["bert-base"]],
        rows,
        left=["model", ""],
        sections=range(2, len(rows), 3),
    )


def _claim() -> str:
    """What the paper says of a product of FP8 beside one of LNS, and what this project's own hardware says."""
    own, printed = get("measured"), paper.TABLE["bert-base"]

    def mean(prices: dict) -> float:
        return sum(sum(p.slot.values()) for p in prices.values()) / len(prices)

    lns = mean({name: own.lns(USUAL, name) for name in PASSES})
    others = {name: mean({p: own.others(p)[name] for p in PASSES}) for name in own.others("forward")}
    shown = ", ".join(f"{fj / lns:.2f} ({name})" for name, fj in others.items() if name.startswith("FP8"))
    return (
        f"The paper claims that FP8 takes {printed['FP8'] / printed['LNS']:.1f} times the energy of LNS. Our own RTL "
        f"on {own.process.name} shows, with LUT 8 and 24-bit sums in convolutions: {shown}; docs/energy.md says why."
    )


@command
def energy(
    ctx: typer.Context,
    model: ModelName,
    input: Input = None,
    context: TokensOfSample = None,
    batch_size: BatchSize = 1,
    recipe: Annotated[str, typer.Option(help=RECIPE_HELP)] = "lns-madam",
    technology: TechnologyName = "paper",
    layers: Annotated[bool, typer.Option("--layers", help="a row for each layer and pass, too")] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="folder for energy.json, energy.png and .svg", show_default="runs/energy/1 and so on"),
    ] = None,
    force: Force = False,
    *,
    changes: dict,
    output: Output,
) -> None:
    """Estimate the energy of a training iteration, beside other formats on the like hardware.

    Every product of the model's three passes is mapped to the paper's processing element; nothing is computed. The
    model "paper" stands for the table of LNS-Madam's paper beside this estimate's. What the numbers rest on is in
    docs/energy.md; cycles, time and memories are told by `lns-sim cycles`.
    """
    check_folder(out, force)
    refuse(ctx, ["update_bits"], "products do not see it")
    if model == "paper":
        idle = given(ctx).keys() - {"model", "out", "force", "quiet", "as_json", "debug"}
        refuse(ctx, idle, "the paper's table is what it is")
        each = paper.reproduce()
        known = {"technology": next(iter(each.values())).technology}
        found: dict = {name: e.to_dict() for name, e in each.items()}
    else:
        chosen = simulating(recipe, changes, "an energy")
        built, x, title = build(model, input, context, batch_size)
        one = energy_of(built, x, recipe=chosen, technology=technology)
        known = {"recipe": recipes.to_plain(chosen), "technology": one.technology}
        found = one.to_dict()
    used = {name: vars(c) for name, c in constants().items()}
    record = provenance(model=model, **known, energy=found, constants=used)
    folder = run_folder(out, "energy", force)
    write_json(record, folder / "energy.json")
    output.show(_claim())
    if model == "paper":
        picture.draw_paper(each, caption(record), folder / "energy.png")
        _print_paper(each, output)
    else:
        picture.draw(one, title, caption(record), folder / "energy.png")
        _print(one, title, output, layers)
    output.show(f"Wrote energy.json, energy.png and energy.svg to {folder}.")
    output.result(record)
