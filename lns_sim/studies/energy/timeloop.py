"""Export for Timeloop and Accelergy: the array as an architecture, every pass of every layer as a problem.

The files are in version 0.4 of the input formats (timeloop.csail.mit.edu/v4/input-formats). Constraints say what each
memory keeps and what is spread over lanes; loops that they leave open are the mapper's to order.

Energies are left to Accelergy: its library has no LNS lane, so that the lane stands as an integer multiply-add of the
operands' bits. A convolution is exported as the matrix product of its patches.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from lns_sim.studies.energy.components import number
from lns_sim.studies.energy.cycles import Cycles
from lns_sim.studies.energy.energy import multiplied
from lns_sim.studies.energy.mapping import DATAFLOWS
from lns_sim.watching.passes import Pass
from lns_sim.watching.summary import Summary

VERSION = 0.4
LOOPS = "GMNTK"  # products, rows of Moving, rows of Stationary, kernel positions, channels
TENSORS = ("Stationary", "Moving", "Outputs")
_HEAD = "# Made by: "


def write(found: Summary, cycles: Cycles, origin: str, folder: Path) -> int:
    """Writes architecture.yaml and problems/*.yaml into a folder; returns how many problems.

    Problems of an earlier export are removed. ``origin`` says in the first line what made the files.

    Raises:
        ImportError: PyYAML is not installed.
        OSError: a file cannot be written, or one of an earlier export not read or removed.
        ValueError: the passes have datapaths of different vectors or accumulators: one architecture is written.
    """
    try:
        import yaml
    except ImportError:
        raise ImportError("the export needs the library PyYAML: pip install 'lns-sim[energy]'") from None

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    Dumper.add_representer(Node, lambda dumper, node: dumper.represent_mapping(node.tag, node.items()))
    passes = multiplied(found)
    kinds = {(p.datapath.vector_size, p.datapath.acc_bits, p.datapath.format.bits) for p in passes}
    if len(kinds) > 1:
        raise ValueError("the passes have datapaths of different vectors, accumulators or formats: no one architecture")

    def save(path: Path, content: dict[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = yaml.dump(content, Dumper=Dumper, sort_keys=False, default_flow_style=None, width=120)
        path.write_text(f"{_HEAD}{origin}\n{text}")

    for earlier in (folder / "problems").glob("*.yaml"):
        if earlier.read_text().startswith(_HEAD):
            earlier.unlink()
    save(folder / "architecture.yaml", architecture(cycles, *kinds.pop()))
    for i, p in enumerate(passes):
        name = re.sub(r"\W+", "_", f"{i:03d}_{p.layer or 'model'}_{p.name}")
        save(folder / "problems" / f"{name}.yaml", problem(p, name))
    return len(passes)


class Node(dict):
    """A mapping with a YAML tag."""

    def __init__(self, tag: str, **items: Any):
        super().__init__(**items)
        self.tag = f"!{tag}"


def architecture(cycles: Cycles, vector_size: int, acc_bits: int, bits: int) -> dict[str, Any]:
    """The array from DRAM to the lane. Weights (in the weight gradient activations) are Stationary, what passes by is
    Moving.
    """
    lanes, held = int(number("lanes")), int(number("held"))
    bank, b = int(number("buffer_a")) // lanes, int(number("buffer_b"))
    word = vector_size * bits

    def memory(name: str, kind: str, *keep: str, **attributes: Any) -> Node:
        bypass = [tensor for tensor in TENSORS if tensor not in keep]
        constraints = {"dataspace": {"keep": list(keep), "bypass": bypass}}
        return Node("Component", name=name, **{"class": kind}, attributes=attributes, constraints=constraints)

    def parallel(name: str, mesh: int, loops: str) -> Node:
        """So many of what follows, over which these loops may be spread."""
        factors = [f"{d}=1" for d in LOOPS if d not in loops]
        return Node("Container", name=name, spatial={"meshX": mesh}, constraints={"spatial": {"factors": factors}})

    register = memory("register_a", "regfile", "Stationary", depth=1, width=word, datawidth=bits)
    rows = DATAFLOWS[cycles.array.dataflow]()  # of Moving, for which a vector stays in the register
    limits = [f"{d}=1" for d in LOOPS if d != "M"] + ([f"M<={rows:.0f}"] if math.isfinite(rows) else [])
    register["constraints"]["temporal"] = {"factors": limits}
    system = {
        "technology": f"{cycles.technology['node_nm']:g}nm",
        "global_cycle_seconds": float(f"{1e-9 / cycles.clock:.6g}"),
    }
    # Timeloop's bandwidths are in words a cycle.
    bandwidth = round(cycles.bandwidth / (cycles.clock * 1e9) * 8 / bits, 3)
    size = 1 << 28  # words of DRAM: Timeloop asks for it; it bounds nothing
    nodes = [
        Node("Container", name="system", attributes=system),
        memory("DRAM", "DRAM", *TENSORS, type="HBM2", width=64, depth=size, datawidth=bits, shared_bandwidth=bandwidth),
        Node("Container", name="chip"),
        memory("global_buffer", "SRAM", *TENSORS, depth=cycles.buffer * 8 // word, width=word, datawidth=bits),
        parallel("PE", cycles.array.pes, "GMN"),
        memory("buffer_b", "SRAM", "Moving", depth=b * 8 // word, width=word, datawidth=bits),
        parallel("dot_product", lanes, "N"),
        memory("buffer_a", "SRAM", "Stationary", depth=bank * 8 // word, width=word, datawidth=bits),
        memory("collector", "regfile", "Outputs", depth=held, width=acc_bits, datawidth=acc_bits),
        register,
        parallel("lane", vector_size, "K"),
        Node("Component", name="mac", **{"class": "intmac"}, attributes={"datawidth": bits}),
    ]
    return {"architecture": {"version": VERSION, "nodes": nodes}}


def problem(p: Pass, name: str) -> dict[str, Any]:
    """A pass as G products of an (M, TK) and an (N, TK) matrix: the rows of Moving with the rows of Stationary."""
    s = p.shape
    spaces = [
        {"name": "Stationary", "projection": [[[d]] for d in "GNTK"]},
        {"name": "Moving", "projection": [[[d]] for d in "GMTK"]},
        {"name": "Outputs", "projection": [[[d]] for d in "GMN"], "read_write": True},
    ]
    shape = {"name": name, "dimensions": list(LOOPS), "data_spaces": spaces}
    sizes = {"G": s.repeats, "M": s.rows, "N": s.columns, "T": s.taps, "K": s.depth}
    return {"problem": {"version": VERSION, "shape": shape, "instance": sizes}}
