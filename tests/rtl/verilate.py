"""Builds the RTL with Verilator and runs vectors through it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np

from lns_sim import Datapath

RTL = Path(__file__).parents[2] / "csrc/rtl"
SOURCES = (
    "lns_pkg.sv",
    "lns_lane.sv",
    "lns_adder_tree.sv",
    "lns_bin.sv",
    "collector.sv",
    "lns_pe.sv",
    "lns_convert.sv",
    "lns_datapath.sv",
)
ENTRIES = 16


def parameters(d: Datapath) -> dict[str, int]:
    """The RTL's parameters for a datapath."""
    return {
        "BITS": d.format.bits,
        "GAMMA": d.format.gamma,
        "LANES": d.vector_size,
        "LUT_ENTRIES": d.lut_entries,
        "LUT_BITS": d.lut_bits,
        "ACC_BITS": d.acc_bits,
        "ACC_LSB": d.lsb,
        "NEAREST": int(d.rounding == "nearest"),
        "WRAP": int(d.overflow == "wrap"),
        "ENTRIES": ENTRIES,
    }


def lint(d: Datapath) -> str:
    """What Verilator has against it, with all warnings on."""
    return _verilator(d, RTL, "--lint-only", "-Wall").stderr


def build(d: Datapath, folder: Path, rtl: Path = RTL) -> Path:
    """The simulator's executable."""
    bench = Path(__file__).with_name("testbench.cpp")
    run = _verilator(
        d,
        rtl,
        "--cc",
        "--exe",
        "--build",
        "--assert",
        "-Wno-fatal",
        "-O3",
        "--x-assign",
        "unique",
        "--Mdir",
        str(folder),
        "-CFLAGS",
        f"-O2 -DACC_BITS={d.acc_bits}",
        str(bench),
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    return folder / "Vlns_datapath"


def _verilator(d: Datapath, rtl: Path, *options: str) -> subprocess.CompletedProcess:
    given = [f"-G{name}={value}" for name, value in parameters(d).items()]
    command = ["verilator", *options, "--top-module", "lns_datapath", *given, *(str(rtl / name) for name in SOURCES)]
    return subprocess.run(command, capture_output=True, text=True)


def simulate(program: Path, d: Datapath, a: np.ndarray, b: np.ndarray, scale: int = 0, pause: int = 0):
    """Sends dot products (rows of a and b) through the hardware, up to 16 at a time, vector by vector in turn.

    Args:
        program: what :func:`build` made for the datapath.
        a, b: codes of shape (dot products, K).
        scale: of the post-processing.
        pause: how often each side pauses, in 256ths.

    Returns:
        accumulators and codes, int64 of shape (dot products,), and the number of clocks.
    """
    count, k = a.shape
    vectors = -(-k // d.vector_size)
    words = [_lanes(x, vectors, d) for x in (a, b)]
    order = np.arange(count * vectors)
    group, within = divmod(order, ENTRIES * vectors)  # 16 dot products share the collector
    left = np.minimum(count - group * ENTRIES, ENTRIES)
    vector, entry = divmod(within, left)
    row = group * ENTRIES + entry
    stride = words[0].shape[-1]
    records = np.zeros((len(order), 4 + 2 * stride), np.uint8)
    records[:, 0], records[:, 1], records[:, 2] = entry, vector == 0, vector == vectors - 1
    records[:, 4 : 4 + stride], records[:, 4 + stride :] = words[0][row, vector], words[1][row, vector]
    given, found = program.parent / "vectors.bin", program.parent / "results.bin"
    given.write_bytes(np.array([len(order), scale, pause, stride], np.int32).tobytes() + records.tobytes())
    run = subprocess.run([program, given, found], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    results = np.fromfile(found, np.int32).reshape(-1, 3).astype(np.int64)
    results, end = results[:-1], results[-1]
    assert end[0] == -1 and len(results) == count, f"{len(results)} results of {count} dot products"
    last = vector == vectors - 1
    assert (results[:, 0] == entry[last]).all(), "results of other entries"
    accumulators, codes = np.empty(count, np.int64), np.empty(count, np.int64)
    accumulators[row[last]], codes[row[last]] = results[:, 1], results[:, 2]
    return accumulators, codes, int(end[1])


def _lanes(codes: np.ndarray, vectors: int, d: Datapath) -> np.ndarray:
    """Bytes of every vector, lane 0 in the lowest bits, padded to eight bytes."""
    count, k = codes.shape
    padded = np.zeros((count, vectors * d.vector_size), np.int64)
    padded[:, :k] = codes
    bits = (padded.reshape(count, vectors, d.vector_size, 1) >> np.arange(d.format.bits)) & 1
    packed = np.packbits(bits.reshape(count, vectors, -1).astype(np.uint8), axis=-1, bitorder="little")
    return np.pad(packed, ((0, 0), (0, 0), (0, -packed.shape[-1] % 8)))
