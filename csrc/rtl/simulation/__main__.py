"""Sends golden vectors through the RTL, and writes waveforms if asked to.

Run it: python -m csrc.rtl.simulation FOLDER [--waves waves.vcd] (needs Verilator; FOLDER is of `lns-sim vectors`).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from csrc.rtl.design import MICROARCHITECTURES, check_operands, datapath, log_pe
from csrc.rtl.simulation import verilate
from lns_sim import LogDatapath
from lns_sim.golden import read_vectors


def main() -> None:
    """Builds the vectors' datapath, runs them, and says how many results are not the golden ones."""
    parser = argparse.ArgumentParser(description="Sends golden vectors through the RTL.")
    parser.add_argument("folder", type=Path, help="of `lns-sim vectors`")
    parser.add_argument(
        "--microarchitecture", choices=MICROARCHITECTURES, help=f"of a linear PE; {MICROARCHITECTURES[0]}"
    )
    parser.add_argument("--pause", type=int, default=0, help="how often each side pauses, in 256ths")
    parser.add_argument("--waves", type=Path, help="where waveforms go (VCD)")
    given = parser.parse_args()
    if verilate.VERILATOR is None:
        sys.exit("this needs Verilator: on Debian, apt-get install verilator")
    vectors = read_vectors(given.folder)
    check_operands(vectors)
    d, log = vectors.datapath, isinstance(vectors.datapath, LogDatapath)
    if log:
        if given.microarchitecture:
            raise ValueError("a PE that adds logarithms has no --microarchitecture")
        design = log_pe(d)
    else:
        design = datapath(d, given.microarchitecture or MICROARCHITECTURES[0], vectors.converter)
        scale_bits = dict(design.parameters)["SCALE_BITS"]
        if np.any(vectors.scales + (1 << scale_bits - 1) >> scale_bits):
            raise ValueError(
                f"the design's scales have {scale_bits} bits, in which {vectors.scales.max()} does not fit"
            )
    with tempfile.TemporaryDirectory() as folder:
        program = verilate.build(design, Path(folder), waves=given.waves is not None)
        found, codes, clocks = verilate.simulate(
            program, d, vectors.a, vectors.b, 0 if log else vectors.scales, given.pause, given.waves
        )
    right = (found == vectors.accumulators) & (log or codes == vectors.codes)
    wrong = np.flatnonzero(~right)
    print(f"{len(found)} dot products in {clocks} clocks, {len(wrong)} of them not the golden ones")
    sys.exit(len(wrong) > 0)


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(str(error))
