"""Switching activity of the PE, gate by gate, on tensors of a network in training and on random ones, beside INT8 and
FP8 vectors.

Run it: python -m csrc.rtl.synthesis.activity (`make activity`; needs Yosys). The designs of `make area` are simulated
at gate level with zero delay, the left operand held for 16 clocks and the collector's entries in turn (the paper's
local-A-stationary dataflow). The unit is one
switched gate input: a net that changes counts once for each gate input that it drives; a flip-flop's clock input
changes twice a clock.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import lns_sim
from csrc.rtl.design import MICROARCHITECTURES, Design, fp8_vector, int8_vector, pe
from csrc.rtl.synthesis.area import PAPER_CONVERSION
from csrc.rtl.synthesis.netlist import Netlist
from lns_sim import Datapath, recipes
from lns_sim.ops.observer import Observer, observe
from lns_sim.quantizers.operand import Operand
from lns_sim.recipes import PASSES
from lns_sim.studies import models
from lns_sim.studies.training import data

HELD = 16  # clocks that the stationary operand stays
STREAMS, VECTORS = 1024, 9  # simulated side by side; of K
SOURCES = ("random", *PASSES)
# What a design's blocks are called in tables, in the order of the data.
BLOCKS = {
    "registers": "operands and registers",
    "product": "products",
    "term": "shifts and ROMs",
    "tree": "adder trees",
    "": "constants, alignment, control",
    "collector": "collector",
    "results": "queue",
    "clock": "clock",
}
VECTOR_BLOCKS = {
    "registers": BLOCKS["registers"],
    "": "multipliers",
    "tree": "adder trees",
    "collector": "collector",
    "clock": "clock",
}


class _Products(Observer):
    """Operands of every product, by layer and pass."""

    def __init__(self):
        self.found: dict[int, dict[str, tuple[Operand, Operand]]] = {}

    def product(self, product) -> None:
        self.found.setdefault(product.site, {})[product.name] = product.operands


def trained_operands(layer: str, steps: int = 20) -> dict[str, tuple[Operand, Operand]]:
    """Both operands of each pass of a "convolution" (3 x 3, padding 1) or the "linear" layer of a CNN on digits, after
    some steps.
    """
    digits = data.load("digits")
    torch.manual_seed(0)
    model = lns_sim.convert(models.build("cnn", digits.input_shape, digits.classes), recipes.lns_madam())
    optimizer = lns_sim.optim.LNSMadam(model.parameters(), lr=1 / 16)
    for step in range(steps):
        optimizer.zero_grad()
        at = 64 * step % (len(digits.x_train) - 64)
        with observe(_Products()) as seen:
            F.cross_entropy(model(digits.x_train[at : at + 64]), digits.y_train[at : at + 64]).backward()
        optimizer.step()
    return seen.found[sorted(seen.found)[{"convolution": 1, "linear": 3}[layer]]]


def rows(name: str, layer: str, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both operands of a pass of :func:`trained_operands` as rows along K; a convolution's patches have the channel
    fastest.
    """
    if layer == "linear":
        return a, b.mT

    def patches(x: Tensor) -> Tensor:  # (N * H * W, kh * kw * C)
        n, c = x.shape[:2]
        return F.unfold(x.double(), 3, padding=1).view(n, c, 9, -1).permute(0, 3, 2, 1).reshape(-1, 9 * c).to(x.dtype)

    if name == "forward":
        return patches(a), b.permute(0, 2, 3, 1).flatten(1)
    if name == "input_gradient":
        return patches(a), b.flip(2, 3).permute(1, 2, 3, 0).flatten(1)
    return a.transpose(0, 1).flatten(1), patches(b).mT


def _int8(x: Tensor) -> np.ndarray:
    return (x * (127 / x.abs().max())).round().to(torch.int8).view(torch.uint8).numpy()


def _e4m3(x: Tensor) -> np.ndarray:
    return (x * (448 / x.abs().max())).to(torch.float8_e4m3fn).view(torch.uint8).numpy()


def operand_bytes(kind: str, trained: dict[str, tuple[Operand, Operand]]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By source the codes of the moving and the stationary operand, rows along K, for "lns", "int8" or "e4m3"."""
    rng = np.random.default_rng(0)
    found = {"random": tuple(rng.integers(0, 256, (4096, 32 * VECTORS), dtype=np.uint8) for _ in range(2))}
    if kind == "e4m3":
        found["random"] = tuple(np.where(x & 127 == 127, 0, x) for x in found["random"])  # NaN
    for name, operands in trained.items():
        if kind == "lns":
            pair = rows(name, "convolution", *(o.codes for o in operands))
            found[name] = tuple(x.contiguous().numpy() for x in pair)
        else:
            pair = rows(name, "convolution", *(o.value for o in operands))
            found[name] = tuple({"int8": _int8, "e4m3": _e4m3}[kind](x.contiguous()) for x in pair)
    return found


def stimulus(moving: np.ndarray, held: np.ndarray, lanes: int = 32) -> dict[str, np.ndarray]:
    """Ports' bits for streams of dot products: a stationary row against 16 moving ones, vector by vector of K."""
    rng = np.random.default_rng(1)
    a, b = rng.integers(len(held), size=STREAMS), rng.integers(len(moving), size=(STREAMS, HELD))
    start = lanes * rng.integers(max(1, held.shape[1] // lanes - VECTORS + 1), size=STREAMS)
    ports: dict[str, list[np.ndarray]] = {"in_a": [], "in_b": [], "in_entry": [], "in_first": [], "in_last": []}
    vectors = min(VECTORS, held.shape[1] // lanes)
    for v in range(vectors):
        k = start[:, None] + lanes * v + np.arange(lanes)
        left = held[a[:, None], k]
        for entry in range(HELD):
            for name, value in (("in_a", left), ("in_b", moving[b[:, entry, None], k])):
                ports[name].append(np.unpackbits(value, axis=1, bitorder="little").astype(bool))
            ports["in_entry"].append(np.broadcast_to((entry >> np.arange(4) & 1).astype(bool), (STREAMS, 4)))
            ports["in_first"].append(np.full((STREAMS, 1), v == 0))
            ports["in_last"].append(np.full((STREAMS, 1), v == vectors - 1))
    found = {name: np.stack(bits) for name, bits in ports.items()}
    found["in_valid"] = found["out_ready"] = np.ones_like(found["in_first"])
    return found


def measure(design: Design, kind: str, trained: dict[str, tuple[Operand, Operand]]) -> dict[str, dict[str, float]]:
    """Switched gate inputs for each product: by source, then by block. ``kind`` as in :func:`operand_bytes`."""
    netlist = Netlist(design)
    labels = BLOCKS if kind == "lns" else VECTOR_BLOCKS
    found: dict[str, dict[str, float]] = {}
    for source, (moving, held) in operand_bytes(kind, trained).items():
        inputs = {name: bits for name, bits in stimulus(moving, held).items() if name in netlist.ports}
        skip = HELD  # until every entry of the collector has been written
        switched, _ = netlist.run(inputs, skip=skip)
        products = (len(inputs["in_a"]) - 1 - skip) * STREAMS * 32
        blocks = dict.fromkeys(labels.values(), 0.0)
        for block, count in netlist.by_block(switched * netlist.loads).items():
            blocks[labels[block]] += count / products
        blocks["clock"] = 2 * netlist.flip_flops / 32
        found[source] = blocks
    return found


def designs() -> list[tuple[Design, str]]:
    """The table's rows, and the codes that each takes."""
    base = Datapath()
    found = [
        (pe(replace(base, lut_entries=n), m, name=f"LNS {m}, LUT {n}"), "lns")
        for m in MICROARCHITECTURES
        for n in PAPER_CONVERSION
    ]
    found.append((pe(base, handshake=False, name="LNS rom, LUT 8, no handshake"), "lns"))
    return [*found, (int8_vector(), "int8"), (fp8_vector(), "e4m3")]


def draw(found: dict[str, dict[str, dict[str, float]]], path: Path) -> None:
    """A bar for each design and source, stacked by block."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.patches import Patch

    labels = list(dict.fromkeys(label for sources in found.values() for blocks in sources.values() for label in blocks))
    figure, axes = plt.subplots(figsize=(9.5, 0.3 * len(found) * (len(SOURCES) + 1) + 1.2), layout="constrained")
    at, ticks, names = 0, [], []
    for design, sources in found.items():
        for source in SOURCES:
            left = 0.0
            for i, label in enumerate(labels):
                value = sources[source].get(label, 0.0)
                axes.barh(at, value, left=left, color=f"C{i}")
                left += value
            ticks.append(at)
            names.append(f"{design}: {source.replace('_', ' ')}")
            at += 1
        at += 1
    axes.set_yticks(ticks, names)
    axes.invert_yaxis()
    axes.set(xlabel="switched gate inputs for each product", title="Switching activity, 32 lanes, 16 accumulators")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(handles=[Patch(color=f"C{i}", label=label) for i, label in enumerate(labels)], fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(out: Path) -> None:
    """Measures all designs, two at a time; prints the table, writes activity.json and activity.png."""
    from rich.console import Console
    from rich.table import Table

    chosen, trained = designs(), trained_operands("convolution")
    with ThreadPoolExecutor(2) as pool, Console().status("synthesizing and simulating"):
        found = dict(zip((design.name for design, _ in chosen), pool.map(lambda pair: measure(*pair, trained), chosen)))
    table = Table(
        title="Switched gate inputs for each product",
        caption="conversion: what stands between registers and collector, mean of "
        "the three passes, to LUT 1; paper: its energy of conversion (LNS-Madam, IEEE TC 2022), to LUT 1",
    )
    for name in ("design", *(s.replace("_", " ") for s in SOURCES), "mean of passes", "conversion", "paper"):
        table.add_column(name, justify="left" if name == "design" else "right")
    paper = {
        f"LNS {m}, LUT {n}": (f"LNS {m}, LUT 1", fj / PAPER_CONVERSION[1])
        for m in MICROARCHITECTURES
        for n, fj in PAPER_CONVERSION.items()
    }
    for name, sources in found.items():
        totals = [sum(sources[source].values()) for source in SOURCES]
        first, energy = paper.get(name, (None, 0.0))
        ratios = (f"{conversion(sources) / conversion(found[first]):.2f}", f"{energy:.2f}") if first else ("", "")
        table.add_row(name, *(f"{t:.0f}" for t in totals), f"{np.mean(totals[1:]):.0f}", *ratios)
    console = Console()
    (console if console.is_terminal else Console(width=120)).print(table)
    out.mkdir(parents=True, exist_ok=True)
    (out / "activity.json").write_text(json.dumps(found, indent=1))
    draw(found, out / "activity.png")
    print(f"Wrote {out / 'activity.json'} and {out / 'activity.png'}.")


def conversion(sources: dict[str, dict[str, float]]) -> float:
    """What turns products into sums: all blocks between registers and collector, mean of the three passes."""
    return float(np.mean([sum(sources[p][BLOCKS[b]] for b in ("product", "term", "tree", "")) for p in PASSES]))


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/activity"))
    except RuntimeError as error:
        sys.exit(str(error))
