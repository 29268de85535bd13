"""Claims about parts of the PE, and their proof."""

from __future__ import annotations

from csrc.rtl.design import Design, pe
from csrc.rtl.synthesis import yosys
from lns_sim import Datapath, LNSFormat

DATAPATHS = [
    *(Datapath(lut_entries=n) for n in (1, 2, 4, 8)),
    Datapath(LNSFormat(8, 16), acc_lsb=-6),
    Datapath(LNSFormat(6, 1)),
    Datapath(LNSFormat(6, 16), lut_entries=4, lut_bits=6, acc_lsb=-3),
    Datapath(acc_bits=8),
]
SUMS = [(2, 6), (3, 5), (5, 4), (6, 4), (8, 3)]


def claims() -> list[Design]:
    """A lane of each datapath, and trees of so many numbers of so many bits."""
    return [lane(d) for d in DATAPATHS] + [tree(n, w) for n, w in SUMS]


def lane(d: Datapath) -> Design:
    """That a lane is the specification's."""
    design = pe(d)
    wanted = ("BITS", "GAMMA", "LUT_ENTRIES", "LUT_BITS", "ACC_LSB")
    parameters = tuple((name, value) for name, value in design.parameters if name in wanted)
    return Design(f"a lane of {d}", "lane_claim", (*design.sources, "formal/lane_claim.sv"), parameters)


def tree(n: int, w: int) -> Design:
    """That a tree adds n numbers of w bits."""
    return Design(
        f"the sum of {n} numbers of {w} bits",
        "sum_claim",
        (*pe(Datapath()).sources, "formal/sum_claim.sv"),
        (("N", n), ("W", w)),
    )


def prove(claim: Design) -> None:
    """Raises RuntimeError where the claim does not hold, or as :func:`csrc.rtl.synthesis.yosys.run`."""
    yosys.run(
        claim,
        f"hierarchy -top {claim.top}\nproc\nflatten\nopt -full\ntechmap\nopt\nsat -verify -prove holds 1 {claim.top}",
    )
