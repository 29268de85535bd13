"""The comparison as one HTML file that needs nothing else: verdict, picture, and tables that sort and filter."""

from __future__ import annotations

import math
from importlib.resources import files

from lns_sim.html import html_table
from lns_sim.studies.compare.measure import RUNS, Comparison, Row
from lns_sim.studies.compare.picture import svg

HEADER = (
    "#",
    "layer",
    "pass",
    "MACs",
    "fake-quant dB",
    "bit-exact dB",
    "datapath dB",
    "margin dB",
    "largest difference",
    "saturated",
    "vanished",
    "clipped",
    "underflowed",
    "zeros",
)
# Columns of a datapath, which a comparison without one has not.
OF_DATAPATHS = ("bit-exact dB", "datapath dB", "margin dB", "largest difference", "saturated", "vanished")
CODES_HEADER = ("layer", "tensor", "clipped", "underflowed", "zeros", "octaves")


def columns(comparison: Comparison) -> list[int]:
    """Which columns of :data:`HEADER` say something."""
    return [i for i, name in enumerate(HEADER) if comparison.simulated or name not in OF_DATAPATHS]


def decibels(value: float | None) -> str:
    """A ratio as tables show it."""
    if value is None:
        return "-"
    return "∞" if value == math.inf else "-∞" if value == -math.inf else f"{value:.1f}"


def percent(share: float | None) -> str:
    """A share as tables show it."""
    return "-" if share is None else "0" if share == 0 else f"{100 * share:.2g} %"


def cells(number: int, row: Row) -> list[str]:
    """One row of the table under :data:`HEADER`; of both operands where they differ, "a / w"."""
    codes = [
        " / ".join(percent(getattr(c, what)) for c in row.operands) or "-"
        for what in ("clipped", "underflowed", "zeros")
    ]
    return [
        str(number),
        row.layer,
        row.name.replace("_", " "),
        f"{row.macs:,}",
        decibels(row.fake_quant),
        decibels(row.bit_exact),
        decibels(row.datapath),
        decibels(row.margin),
        percent(row.difference_datapath),
        percent(row.saturated),
        percent(row.vanished),
        *codes,
    ]


def table(comparison: Comparison) -> str:
    """The verdict and the table of passes alone, as HTML."""
    shown = columns(comparison)
    rows = [[HEADER[i] for i in shown]]
    rows += [[cells(n, row)[i] for i in shown] for n, row in enumerate(comparison.rows, start=1)]
    return html_table(rows, f"{comparison.recipe}: {comparison.verdict()}")


def html(comparison: Comparison, title: str, made: dict) -> str:
    """The page's text.

    Args:
        comparison: what to show.
        title: model, data and batch.
        made: :func:`lns_sim.environment.provenance`, with "seed", "data" and "checkpoint" where there are such.
    """
    import jinja2

    template = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        files("lns_sim.studies.compare").joinpath("page.html").read_text("utf-8")
    )
    sums = [(run, f"{comparison.losses[run]:.6g}") for run in RUNS if run in comparison.losses]
    codes = [
        [layer, c.tensor, percent(c.clipped), percent(c.underflowed), percent(c.zeros), f"{c.octaves:.1f}"]
        for layer, found in comparison.codes.items()
        for c in found
    ]
    shown = columns(comparison)
    rows = [
        (row.margin < 0, bool(row.saturated), [cells(number, row)[i] for i in shown])
        for number, row in enumerate(comparison.rows, start=1)
    ]
    about = {"recipe": f"{comparison.recipe}: {comparison.formats}", "command": made["commands"][-1]}
    about |= {name: str(made[name]) for name in ("checkpoint", "seed") if made.get(name) is not None}
    if "data" in made:
        about["data"] = f"{made['data']['name']}, fingerprint {made['data']['fingerprint']}"
    known = made["environment"]
    about |= {name: str(known[name]) for name in ("lns_sim", "torch", "python", "cpu", "isa")}
    about["gpus"] = ", ".join(known["gpus"]) or "none"
    return template.render(
        title=title,
        recipe=comparison.recipe,
        verdict=comparison.verdict(),
        losses=sums,
        simulated=comparison.simulated,
        picture=svg(comparison, made),
        header=[HEADER[i] for i in shown],
        rows=rows,
        codes_header=CODES_HEADER,
        codes=codes,
        about=about,
        passes=list(dict.fromkeys(row.name.replace("_", " ") for row in comparison.rows)),
    )
