"""Builds the RTL with Verilator and runs vectors through it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

from csrc.rtl.design import ENTRIES, RTL, Design
from lns_sim import Datapath, LogDatapath

VERILATOR = shutil.which("verilator")
_OPTIMIZED = "-O1"  # more would take longer to compile than it saves


def lint(design: Design, root: Path = RTL) -> str:
    """What Verilator has against it, with all warnings on."""
    return _verilator(design, root, "--lint-only", "-Wall").stderr


def build(design: Design, folder: Path, root: Path = RTL, waves: bool = False) -> Path:
    """The simulator's executable: a design and the bench that drives it, which can write waveforms if asked for
    here.
    """
    bench = Path(__file__).with_name("testbench.cpp")
    known = ("ACC_BITS", "LANES", "SCALE_BITS")
    widths = " ".join(f"-D{name}={value}" for name, value in design.parameters if name in known)
    run = _verilator(
        design,
        root,
        "--cc",
        "--exe",
        "--assert",
        "-Wno-fatal",
        "-O3",
        "--x-assign",
        "unique",
        "--prefix",
        "Vtop",
        "--Mdir",
        str(folder),
        "-CFLAGS",
        f"{_OPTIMIZED} {widths}",
        *["--trace"] * waves,
        str(bench),
    )
    assert run.returncode == 0, run.stderr[-2000:]
    for library in () if waves else Path(_libraries().name).glob("*.o"):
        shutil.copy(library, folder)
    _make(folder, "Vtop")
    return folder / "Vtop"


@cache
def _libraries() -> tempfile.TemporaryDirectory:
    """Verilator's own objects, half of a small simulator's compilation: they are the same for every design."""
    folder = tempfile.TemporaryDirectory()
    nothing = Path(folder.name) / "nothing.sv"
    nothing.write_text("module nothing; endmodule\n")
    subprocess.run(
        [VERILATOR, "--cc", "--exe", "--prefix", "Vtop", "--Mdir", folder.name, "-CFLAGS", _OPTIMIZED, nothing],
        check=True,
    )
    _make(Path(folder.name), "verilated.o", "verilated_threads.o")
    return folder


def _make(folder: Path, *targets: str) -> None:
    """Verilator's files as one, whose headers take longer than their code; the makefile's own optimization is the last
    that the compiler is given.
    """
    command = ["make", "-C", folder, "-f", "Vtop.mk", "VM_PARALLEL_BUILDS=0", f"OPT_FAST={_OPTIMIZED}", *targets]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]


def _verilator(design: Design, root: Path, *options: str) -> subprocess.CompletedProcess:
    given = [f"-G{name}={value}" for name, value in design.parameters]
    # Loops over up to 4096 lanes.
    command = [VERILATOR, *options, "--unroll-count", "512", "--top-module", design.top, *given, *design.paths(root)]
    return subprocess.run(command, capture_output=True, text=True)


def simulate(
    program: Path,
    d: Datapath | LogDatapath,
    a: np.ndarray,
    b: np.ndarray,
    scale=0,
    pause: int = 0,
    waves: Path | None = None,
    entries: int = ENTRIES,
):
    """Sends dot products (rows of a and b) through the hardware, as many at a time as the collector has entries, vector
    by vector in turn.

    Args:
        program: what :func:`build` made for the datapath.
        a, b: codes of shape (dot products, K).
        scale: of the post-processing, one for all or one for each dot product.
        pause: how often each side pauses, in 256ths.
        waves: where waveforms go (VCD), of a program that is built for them.
        entries: of the program's collector, up to 256.

    Returns:
        accumulators and codes, int64 of shape (dot products,), and the number of clocks.
    """
    count, k = a.shape
    vectors = -(-k // d.vector_size)
    words = [_lanes(x, vectors, d) for x in (a, b)]
    order = np.arange(count * vectors)
    group, within = divmod(order, entries * vectors)  # so many dot products share the collector
    left = np.minimum(count - group * entries, entries)
    vector, entry = divmod(within, left)
    row = group * entries + entry
    stride = words[0].shape[-1]
    records = np.zeros((len(order), 8 + 2 * stride), np.uint8)
    last = vector == vectors - 1
    records[:, 0], records[:, 1], records[:, 2] = entry, vector == 0, last
    scales = np.where(last, np.broadcast_to(scale, count)[row], -1)  # read with the last vector only
    records[:, 4:8] = scales.astype(np.int32)[:, None].view(np.uint8)
    records[:, 8 : 8 + stride], records[:, 8 + stride :] = words[0][row, vector], words[1][row, vector]
    given, found = program.parent / "vectors.bin", program.parent / "results.bin"
    given.write_bytes(np.array([len(order), pause, stride], np.int32).tobytes() + records.tobytes())
    run = subprocess.run([program, given, found, *([waves] if waves else [])], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    results = np.fromfile(found, np.int32).reshape(-1, 3).astype(np.int64)
    results, end = results[:-1], results[-1]
    assert end[0] == -1 and len(results) == count, f"{len(results)} results of {count} dot products"
    assert (results[:, 0] == entry[last]).all(), "results of other entries"
    accumulators, codes = np.empty(count, np.int64), np.empty(count, np.int64)
    accumulators[row[last]], codes[row[last]] = signed(results[:, 1], d), results[:, 2]
    return accumulators, codes, int(end[1])


def signed(acc: np.ndarray, d: Datapath | LogDatapath) -> np.ndarray:
    """What stands in accumulators as integers, if their bits are taken as two's complement: a logarithm is a sign over
    a magnitude.
    """
    if isinstance(d, Datapath):
        return acc
    magnitude = acc & ((1 << d.acc_bits - 1) - 1)
    return np.where(acc < 0, -magnitude, magnitude)


def _lanes(codes: np.ndarray, vectors: int, d: Datapath | LogDatapath) -> np.ndarray:
    """Bytes of every vector, lane 0 in the lowest bits, padded to eight bytes."""
    count, k = codes.shape
    padded = np.zeros((count, vectors * d.vector_size), np.int64)
    padded[:, :k] = codes
    bits = (padded.reshape(count, vectors, d.vector_size, 1) >> np.arange(d.format.bits)) & 1
    packed = np.packbits(bits.reshape(count, vectors, -1).astype(np.uint8), axis=-1, bitorder="little")
    return np.pad(packed, ((0, 0), (0, 0), (0, -packed.shape[-1] % 8)))
