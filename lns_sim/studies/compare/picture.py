"""The comparison as a picture: signal-to-noise ratios along the model, one panel a pass."""

from __future__ import annotations

import math
import tempfile
import textwrap
from pathlib import Path

from lns_sim.environment import caption
from lns_sim.recipes import PASSES
from lns_sim.studies.compare.measure import Comparison
from lns_sim.studies.pictures import pyplot, save, small_print

_CURVES = (  # attribute, label, color, marker
    ("datapath", "datapath alone: against float32 products of its codes", "C2", "^"),
    ("fake_quant", "fake-quant against float32", "C0", "o"),
    ("bit_exact", "bit-exact against float32", "C1", "x"),
)
_WORDS = 12  # layers whose names and classes have room side by side


def draw(comparison: Comparison, path: Path, title: str, made: dict) -> None:
    """Writes a PNG or whatever the path's ending asks for, and the same as SVG.

    Args:
        comparison: what to show.
        path: the file.
        title: model, data and batch.
        made: :func:`lns_sim.environment.provenance`, for the caption.
    """
    figure = _figure(comparison, title, made)
    small_print(figure, caption(made))
    save(figure, path)


def svg(comparison: Comparison, made: dict) -> str:
    """The picture as an SVG element, without title and caption."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "compare.svg"
        save(_figure(comparison, "", made), path)
        text = path.read_text("utf-8")
    return text[text.index("<svg") :]


def _settings(comparison: Comparison, made: dict, width: float) -> str:
    """Recipe, formats and datapaths, and where the weights are from."""
    weights = f"weights of {made['checkpoint']}" if made.get("checkpoint") else "initial weights"
    seed = f", seed {made['seed']}" if "seed" in made else ""
    text = f"{comparison.recipe}: {comparison.formats}; {weights}{seed}"
    return "\n".join(textwrap.wrap(text, int(12 * width), break_on_hyphens=False))


def _figure(comparison: Comparison, title: str, made: dict):
    panels = [name for name in PASSES if any(row.name == name for row in comparison.rows)]
    layers = list(dict.fromkeys(row.layer for row in comparison.rows))
    width = min(max(8.0, 0.28 * len(layers) + 2), 24.0)
    figure, axes = pyplot().subplots(
        len(panels), 1, figsize=(width, 2 * len(panels) + 2.4), sharex=True, squeeze=False, layout="constrained"
    )
    for panel, name in zip(axes[:, 0], panels):
        rows = {row.layer: row for row in comparison.rows if row.name == name}
        for attribute, label, color, marker in _CURVES if comparison.simulated else _CURVES[1:2]:
            points = [(x, getattr(rows[layer], attribute)) for x, layer in enumerate(layers) if layer in rows]
            points = [(x, y) for x, y in points if y is not None and math.isfinite(y)]
            panel.plot(
                *zip(*points) if points else ((), ()), marker=marker, markersize=4, lw=1, color=color, label=label
            )
        marks = [x for x, layer in enumerate(layers) if layer in rows and rows[layer].saturated]
        if marks:
            low = panel.get_ylim()[0]
            panel.plot(marks, [low] * len(marks), "v", color="C3", label="an accumulator left its range")
        panel.set(title=name.replace("_", " "))
        panel.grid(alpha=0.3)
    figure.supylabel("signal-to-noise ratio, dB")
    names = [f"{layer}\n{comparison.kinds[layer]}" for layer in layers] if len(layers) <= _WORDS else layers
    turned = {} if len(layers) <= _WORDS else {"rotation": 90}
    axes[-1, 0].set_xticks(range(len(layers)), names, fontsize=8 if len(layers) < 60 else 5, **turned)
    axes[-1, 0].set_xlabel("layer, in the order of the forward pass")
    axes[0, 0].set_xlim(-0.5, len(layers) - 0.5)
    known = {label: handle for panel in axes[:, 0] for handle, label in zip(*panel.get_legend_handles_labels())}
    title = f"{title}\n{_settings(comparison, made, width)}".lstrip()
    place = dict(loc="outside upper center", ncols=2, fontsize=8, frameon=False)
    figure.legend(known.values(), known.keys(), title=title, title_fontproperties={"size": 9}, **place)
    return figure
