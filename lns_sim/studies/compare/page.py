"""The comparison as one HTML file that needs nothing else: verdict, picture, and tables that sort and filter."""

from __future__ import annotations

import math
from importlib.resources import files

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
CODES_HEADER = ("layer", "tensor", "clipped", "underflowed", "zeros", "octaves")


def decibels(value: float) -> str:
    """A ratio as tables show it."""
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


def html(comparison: Comparison, title: str, environment: dict[str, str]) -> str:
    """The page's text.

    Args:
        comparison: what to show.
        title: model, data and batch.
        environment: versions and machine, by name.
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
    rows = [(row.margin < 0, bool(row.saturated), cells(i, row)) for i, row in enumerate(comparison.rows, start=1)]
    return template.render(
        title=title,
        recipe=comparison.recipe,
        verdict=comparison.verdict(),
        losses=sums,
        picture=svg(comparison),
        header=HEADER,
        rows=rows,
        codes_header=CODES_HEADER,
        codes=codes,
        environment=environment,
        passes=list(dict.fromkeys(row.name.replace("_", " ") for row in comparison.rows)),
    )
