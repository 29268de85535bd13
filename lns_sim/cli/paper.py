"""lns-sim paper: the tables and figures of the papers, each one command."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from lns_sim.checks import check_choice, check_device
from lns_sim.cli.command import command
from lns_sim.cli.console import Output
from lns_sim.cli.errors import interruptible
from lns_sim.cli.options import Device
from lns_sim.studies.papers import STUDIES, chosen
from lns_sim.studies.papers.bench import Bench
from lns_sim.studies.papers.presets import PRESETS, Preset
from lns_sim.studies.papers.study import Claim, Study
from lns_sim.studies.papers.work import check_data, check_networks, data_of, pool_of, work


@command
def paper(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="studies, beginnings of their names (lns-madam), or all", show_default="a list of them"),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="small (minutes on two cores) or full", show_default="small, on a GPU full")
    ] = None,
    images: Annotated[
        str | None, typer.Option(help="of images, as lns-sim train --data", show_default="digits; full needs one")
    ] = None,
    text: Annotated[
        str | None,
        typer.Option(help="of text, as lns-sim train --data", show_default="Python's library; full needs one"),
    ] = None,
    workers: Annotated[int, typer.Option(help="processes that share the runs, and the GPUs", min=1)] = 1,
    minutes: Annotated[
        float | None,
        typer.Option(help="then no run is under way, and those done are shown", min=0, show_default="all runs"),
    ] = None,
    device: Device = "cpu",
    out: Annotated[
        Path | None, typer.Option(help="folder; it holds every finished run", show_default="runs/paper/PRESET")
    ] = None,
    *,
    output: Output,
) -> None:
    """Repeat a paper's table or figure, and show ours beside the published numbers.

    The same command goes on where the last one stopped; started several times, here or on other machines that share
    the folder, it shares the work. Runs that several studies have in common are done once.
    """
    if not names:
        _list(output)
        return
    begun = time.time()
    studies = chosen(names)
    check_device(device)
    size = preset or ("full" if device.startswith("cuda") else "small")
    check_choice("preset", size, PRESETS)
    made, folder = PRESETS[size], out or Path("runs/paper") / size
    sources = {"images": images or made.sources["images"], "text": text or made.sources["text"]}
    deadline = None if minutes is None else begun + 60 * minutes
    pool, bench = pool_of(studies, made, folder, deadline), Bench(sources, device)
    data = data_of(pool, bench)
    check_networks(pool, bench)
    check_data(data, folder)
    pool.forget_failures()
    with interruptible(output, "finished runs are kept. The same command goes on."):
        work(names, made, bench, folder, workers, deadline, quiet=output.hidden)
    records = {}
    for study in studies:
        records[study.name] = study.write(made, pool, data, folder)
        _show(study, made, records[study.name], output)
    output.show(f"Wrote CSV, JSON, PNG and SVG files of {', '.join(records)} to {folder}.")
    left = len(pool.runs) - pool.finished
    if left:
        output.show(f"{left} of {len(pool.runs)} runs are not done; the same command goes on.")
    output.result(records)
    if failures := pool.failures():
        name, trace = next(iter(failures.items()))
        raise ValueError(f"{len(failures)} runs failed; {name}: {trace.splitlines()[-1]}")


def _list(output: Output) -> None:
    table = Table(title="Studies: lns-sim paper NAME")
    table.add_column("name")
    table.add_column("what the paper says")
    for name, study in STUDIES.items():
        table.add_row(name, study.paper)
    output.show(table)
    output.result({name: {"title": s.title, "paper": s.paper} for name, s in STUDIES.items()})


def _show(study: Study, preset: Preset, record: dict, output: Output) -> None:
    rows, fixed = record["rows"], ("measure", "mean", "deviation", "shown", "seeds", "diverged")
    labels = [c for c in dict.fromkeys(k for r in rows for k in r) if c not in fixed and not c.startswith("published")]
    printed = any(r["published"] is not None for r in rows)
    header = [*labels, "measure", "here", "seeds", *(["published", "status"] if printed else [])]
    cells = [
        [
            *(_number(r.get(c)) for c in labels),
            r["measure"],
            r["shown"],
            str(r["seeds"]),
            *([_number(r["published"]), r["published status"] or ""] if printed else []),
        ]
        for r in rows
    ]
    left = [name for name in header if any(isinstance(r.get(name), str) for r in rows)]
    caption = f"{study.paper}. Here ({preset.name}): {record['note']}"
    output.table(study.title, caption, header, cells, width=140, left=[*left, "measure", "status"], spare=["seeds"])
    for claim in record["claims"]:
        output.show(f"{Claim(**claim).shown:26} {claim['text']}", plain=True)


def _number(value) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
