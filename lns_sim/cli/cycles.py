"""lns-sim cycles: cycles, time and memory traffic of a training iteration on an array of processing elements."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lns_sim import recipes
from lns_sim.cli.built import BatchSize, Input, ModelName, TechnologyName, TokensOfSample, build
from lns_sim.cli.command import command
from lns_sim.cli.console import Output, counted
from lns_sim.cli.options import RECIPE_HELP, Force, check_folder, run_folder, simulating
from lns_sim.environment import caption, provenance
from lns_sim.files import write_json
from lns_sim.nn import convert
from lns_sim.studies.energy import Array, Cycles, roofline, timeloop
from lns_sim.studies.energy import cycles as cycles_of
from lns_sim.studies.energy.mapping import DATAFLOWS
from lns_sim.watching.summary import summary


def _print(found: Cycles, title: str, output: Output, layers: bool) -> None:
    rows = [_row(name.replace("_", " "), found, [s for s in found.steps if s.name == name]) for name in found.names]
    output.table(
        title,
        "",
        ["", "products", "cycles", "lanes used", "array ms", "DRAM MB", "DRAM ms", "ms", "mJ"],
        [*rows, _row("total", found, found.steps)],
        left=[""],
        spare=["products", "array ms", "DRAM ms"],
        sections=[len(rows) - 1],
    )
    if layers:
        rows = []
        for s in found.steps:
            mj = sum(s.energy.values()) * 1e-12
            rows.append(
                [
                    s.layer or "(model)",
                    s.name.replace("_", " "),
                    f"{s.cycles:,.0f}",
                    f"{s.utilization:.0%}",
                    f"{sum(s.dram.values()) / 1e6:.4g}",
                    f"{1e3 * s.seconds:.4g}",
                    s.bound,
                    f"{mj:.4g}",
                    f"{mj / found.total():.1%}",
                ]
            )
        header = ["layer", "pass", "cycles", "lanes used", "DRAM MB", "ms", "bound by", "mJ", "of energy"]
        words = ["layer", "pass", "bound by"]
        output.table("by layer and pass", "", header, rows, left=words, spare=["mJ", "DRAM MB", "cycles"])
    bound = sum(s.seconds for s in found.steps if s.bound == "DRAM") / found.seconds
    output.show(f"{bound:.0%} of the time is DRAM's.")
    parts, moved = found.components(), found.dram()
    output.show("mJ: " + ", ".join(f"{name} {mj:.3g}" for name, mj in parts.items()) + ".")
    output.show("MB of DRAM: " + ", ".join(f"{name} {n / 1e6:.4g}" for name, n in moved.items()) + ".")
    for name, line in found.rests_on.items():
        output.show(f"{name}: {line}.")


def _row(name: str, found: Cycles, steps: list) -> list[str]:
    cycles, products = sum(s.cycles for s in steps), sum(s.products for s in steps)
    room = cycles * found.peak / (found.clock * 1e9)
    return [
        name,
        f"{products:.3g}" if products else "",
        f"{cycles:,.0f}" if cycles else "",
        f"{products / room:.0%}" if room else "",
        f"{1e3 * sum(s.compute for s in steps):.4g}",
        f"{sum(sum(s.dram.values()) for s in steps) / 1e6:.4g}",
        f"{1e3 * sum(s.memory for s in steps):.4g}",
        f"{1e3 * sum(s.seconds for s in steps):.4g}",
        f"{sum(sum(s.energy.values()) for s in steps) * 1e-12:.4g}",
    ]


@command
def cycles(
    model: ModelName,
    input: Input = None,
    context: TokensOfSample = None,
    batch_size: BatchSize = 1,
    pes: Annotated[int, typer.Option(help="processing elements, each of 32 dot products at once")] = 1,
    clock: Annotated[
        float | None, typer.Option(help="in GHz", min=1e-6, show_default="the technology's highest")
    ] = None,
    dataflow: Annotated[str, typer.Option(help=f"what stays in the lanes: {', '.join(DATAFLOWS)}")] = Array.dataflow,
    global_buffer: Annotated[int, typer.Option(help="its KiB, shared by all processing elements", min=1)] = 2048,
    recipe: Annotated[str, typer.Option(help=RECIPE_HELP)] = "lns-madam",
    technology: TechnologyName = "paper",
    layers: Annotated[bool, typer.Option("--layers", help="a row for each layer and pass, too")] = False,
    export: Annotated[
        Path | None, typer.Option("--timeloop", help="folder for Timeloop's YAML: architecture and problems")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="folder for cycles.json, roofline.png and .svg", show_default="runs/cycles/1 and so on"),
    ] = None,
    force: Force = False,
    *,
    changes: dict,
    output: Output,
) -> None:
    """Estimate cycles, time, memory traffic and energy of a training iteration of LNS on an array.

    Passes, optimizer and post-processing, with a global buffer and DRAM; nothing is computed. What is counted, and what
    not, is in docs/energy.md.
    """
    check_folder(out, force, export)
    chosen = simulating(recipe, changes, "an estimate of cycles")
    array = Array(pes, dataflow)
    built, x, title = build(model, input, context, batch_size)
    found = cycles_of(
        built, x, recipe=chosen, technology=technology, array=array, clock=clock, global_buffer=1024 * global_buffer
    )
    title = f"{title}: {pes} PE{'s' * (pes > 1)} at {found.clock:.4g} GHz, {dataflow}, {global_buffer} KiB"
    known = {"recipe": recipes.to_plain(chosen), "technology": found.technology}
    record = provenance(model=model, **known, cycles=found.to_dict())
    folder = run_folder(out, "cycles", force and out is not None)
    write_json(record, folder / "cycles.json")
    roofline.draw(found, title, caption(record), folder / "roofline.png")
    if export is not None:
        problems = timeloop.write(summary(convert(built, chosen), x), found, caption(record), export)
    _print(found, title, output, layers)
    output.show(f"Wrote cycles.json, roofline.png and roofline.svg to {folder}.")
    if export is not None:
        output.show(f"Wrote {export / 'architecture.yaml'} and {counted(problems, 'problem')} beside it.")
    output.result(record)
