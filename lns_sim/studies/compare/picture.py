"""The comparison as a picture: signal-to-noise ratios along the model, one panel a pass."""

from __future__ import annotations

import io
import math
from pathlib import Path

from lns_sim.environment import caption
from lns_sim.recipes import PASSES
from lns_sim.studies.compare.measure import Comparison
from lns_sim.studies.pictures import pyplot, small_print

_CURVES = (  # attribute, label, color, marker
    ("datapath", "datapath alone: against float32 products of its codes", "C2", "^"),
    ("fake_quant", "fake-quant against float32", "C0", "o"),
    ("bit_exact", "bit-exact against float32", "C1", "x"),
)


def draw(comparison: Comparison, path: Path, title: str, made: dict) -> None:
    """Writes a PNG or whatever the path's ending asks for.

    Args:
        comparison: what to show.
        path: the file.
        title: model, data and batch.
        made: :func:`lns_sim.environment.provenance`, for the caption.
    """
    _figure(comparison, title, made, lambda figure: figure.savefig(path, dpi=120))


def svg(comparison: Comparison, made: dict) -> str:
    """The picture as an SVG element, its letters as text, without a title."""
    text = io.StringIO()
    _figure(comparison, "", made, lambda figure: figure.savefig(text, format="svg"))
    return text.getvalue()[text.getvalue().index("<svg") :]


def _figure(comparison: Comparison, title: str, made: dict, save) -> None:
    plt = pyplot()
    panels = [name for name in PASSES if any(row.name == name for row in comparison.rows)]
    layers = list(dict.fromkeys(row.layer for row in comparison.rows))
    width = min(max(8.0, 0.28 * len(layers) + 2), 24.0)
    with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": "lns_sim"}):
        figure, axes = plt.subplots(
            len(panels), 1, figsize=(width, 2.4 * len(panels) + 1.8), sharex=True, squeeze=False, layout="constrained"
        )
        for panel, name in zip(axes[:, 0], panels):
            rows = {row.layer: row for row in comparison.rows if row.name == name}
            for attribute, label, color, marker in _CURVES if comparison.simulated else _CURVES[1:2]:
                points = [(x, getattr(rows[layer], attribute)) for x, layer in enumerate(layers) if layer in rows]
                points = [(x, y) for x, y in points if y is not None and math.isfinite(y)]
                panel.plot(
                    *zip(*points) if points else ((), ()),
                    marker=marker,
                    markersize=4,
                    linewidth=1,
                    color=color,
                    label=label,
                )
            marks = [x for x, layer in enumerate(layers) if layer in rows and rows[layer].saturated]
            if marks:
                low = panel.get_ylim()[0]
                panel.plot(marks, [low] * len(marks), "v", color="C3", label="an accumulator left its range")
            panel.set(title=name.replace("_", " "), ylabel="signal-to-noise, dB")
            panel.grid(alpha=0.3)
        axes[-1, 0].set_xticks(range(len(layers)), layers, rotation=90, fontsize=8 if len(layers) < 60 else 5)
        axes[-1, 0].set_xlabel("layer")
        axes[0, 0].set_xlim(-0.5, len(layers) - 0.5)
        known = {label: handle for panel in axes[:, 0] for handle, label in zip(*panel.get_legend_handles_labels())}
        figure.legend(
            known.values(), known.keys(), loc="outside upper center", ncols=2, fontsize=8, frameon=False, title=title
        )
        where = f"checkpoint {made['checkpoint']}; " if made.get("checkpoint") else ""
        seed = f"seed {made['seed']}; " if "seed" in made else ""
        small_print(figure, f"{comparison.recipe}: {comparison.formats}; {where}{seed}{caption(made)}")
        save(figure)
        plt.close(figure)
