"""A cocotb test to copy: golden vectors through lns_datapath, with pauses on both sides, every result compared.

Run it: lns-sim vectors golden --count 50
        python cocotb_vectors.py golden (needs cocotb and Icarus)
"""

import argparse
import json
import os
import random
import sys
from pathlib import Path

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, RisingEdge

ENTRIES = 16


def words(folder: Path, name: str) -> list[int]:
    """The words of a hex file."""
    return [int(word, 16) for word in (folder / f"{name}.hex").read_text().split()]


async def send(dut, vectors: list[tuple[int, ...]], pauses: random.Random) -> None:
    """Offers each vector until the design takes it."""
    for a, b, entry, first, last, scale in vectors:
        while pauses.random() < 0.3:
            await FallingEdge(dut.clk)
        dut.in_a.value, dut.in_b.value, dut.in_entry.value = a, b, entry
        dut.in_first.value, dut.in_last.value = first, last
        dut.in_scale.value = scale & (1 << len(dut.in_scale)) - 1
        dut.in_valid.value = 1
        await RisingEdge(dut.clk)
        while not dut.in_ready.value:
            await RisingEdge(dut.clk)
        await FallingEdge(dut.clk)
        dut.in_valid.value = 0


async def receive(dut, count: int, pauses: random.Random) -> list[tuple[int, int, int]]:
    """Entry, accumulator and code of each result, which stands still until it is taken."""
    results = []
    while len(results) < count:
        await FallingEdge(dut.clk)
        dut.out_ready.value = pauses.random() < 0.6
        await RisingEdge(dut.clk)
        if dut.out_valid.value and dut.out_ready.value:
            ports = (dut.out_entry, dut.out_acc, dut.out_code)
            results.append(tuple(port.value.to_unsigned() for port in ports))
    return results


@cocotb.test(timeout_time=100, timeout_unit="ms")
async def golden_vectors(dut):
    """Accumulators and codes are the golden ones, in order."""
    folder = Path(os.environ["GOLDEN"])
    about = json.loads((folder / "vectors.json").read_text())
    a, b, acc, scale, code = (words(folder, name) for name in ("a", "b", "acc", "scale", "code"))
    per = about["vectors_per_dot_product"]
    vectors = [
        (a[i], b[i], i // per % ENTRIES, i % per == 0, i % per == per - 1, scale[i // per]) for i in range(len(a))
    ]
    dut.in_valid.value, dut.out_ready.value, dut.rst.value = 0, 0, 1
    cocotb.start_soon(Clock(dut.clk, 10, "ns").start())
    for _ in range(2):
        await FallingEdge(dut.clk)
    dut.rst.value = 0
    cocotb.start_soon(send(dut, vectors, random.Random(1)))
    found = await receive(dut, len(acc), random.Random(2))
    for i, result in enumerate(found):
        assert result == (i % ENTRIES, acc[i], code[i]), f"dot product {i}: {result}, not {acc[i], code[i]}"
    dut._log.info(f"{len(found)} dot products are the golden ones")


def main() -> None:
    """Builds the vectors' datapath with Icarus and runs the test on it."""
    from cocotb_tools.runner import get_results, get_runner
    from lns_sim.rtl.design import check_operands, datapath

    from lns_sim import LogDatapath
    from lns_sim.golden import read_vectors

    here = Path(__file__).resolve()
    parser = argparse.ArgumentParser(description="Golden vectors through the RTL beside this file.")
    parser.add_argument("folder", type=Path, help="that lns-sim vectors wrote")
    folder = parser.parse_args().folder.resolve()
    vectors = read_vectors(folder)
    check_operands(vectors)
    if isinstance(vectors.datapath, LogDatapath):
        raise ValueError(
            "this test drives lns_datapath, which adds in the linear domain, and these vectors add logarithms"
        )
    design = datapath(vectors.datapath, converter=vectors.converter)
    runner = get_runner("icarus")
    runner.build(
        sources=[Path(path) for path in design.paths(here.parents[1])],
        hdl_toplevel=design.top,
        parameters=dict(design.parameters),
        timescale=("1ns", "1ps"),
        build_dir=folder / "icarus",
        always=True,
    )
    sys.path.insert(0, str(here.parent))  # where the simulator's Python looks for the test
    results = runner.test(hdl_toplevel=design.top, test_module=here.stem, extra_env={"GOLDEN": str(folder)})
    sys.exit(get_results(results)[1])


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(str(error))
