"""What all pictures have in common: where they are drawn, colors, stacked bars, the small print, and their files."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path


def pyplot():
    """matplotlib.pyplot, drawing into files; matplotlib is imported only where a picture is wanted."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot

    return matplotlib.pyplot


def small_print(figure, origin: str) -> None:
    """The lines below a figure that say what made it."""
    lines = textwrap.wrap(origin, int(15 * figure.get_figwidth()), break_on_hyphens=False)
    figure.supxlabel("\n".join(lines), fontsize=7, color="0.4", x=0.01, ha="left")


def save(figure, path: Path) -> None:
    """Writes the figure as the path's ending asks for, a PNG, and as SVG beside it, its letters as text; closes it."""
    plt = pyplot()
    figure.savefig(path, dpi=120)
    with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": "lns_sim"}):
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    plt.close(figure)


def finish(figure, title: str, origin: str, path: Path) -> None:
    """Title, small print, and the files (:func:`save`)."""
    figure.suptitle(title)
    small_print(figure, origin)
    save(figure, path)


def colors(names: Sequence[str]) -> dict[str, tuple[float, float, float]]:
    """A color of its own for each name."""
    from matplotlib import colormaps

    return dict(zip(names, colormaps["tab10" if len(names) <= 10 else "tab20"].colors))


def stack(place, bars: dict[str, dict[str, float]], color: dict) -> None:
    """A bar for each key, stacked by component."""
    bottom = [0.0] * len(bars)
    for name in color:
        values = [parts.get(name, 0.0) for parts in bars.values()]
        if any(values):
            place.bar(range(len(bars)), values, bottom=bottom, color=color[name], label=name)
            bottom = [b + v for b, v in zip(bottom, values)]
    place.set_xticks(range(len(bars)), bars)
    place.set_ylim(0, 1.05 * max(bottom))
    place.grid(axis="y", alpha=0.3)
