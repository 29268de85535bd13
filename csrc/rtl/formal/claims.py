"""Claims about parts of the PEs and about the flow of results, and their proof."""

from __future__ import annotations

from dataclasses import dataclass

from csrc.rtl.design import MICROARCHITECTURES, Design, datapath, log_pe, pe
from csrc.rtl.synthesis import yosys
from lns_sim import AccumulatorConverter, Datapath, LNSFormat, LogDatapath

DATAPATHS = [
    *(Datapath(lut_entries=n) for n in (1, 2, 4, 8)),
    Datapath(LNSFormat(8, 16), acc_lsb=-6),
    Datapath(LNSFormat(6, 1)),
    Datapath(LNSFormat(6, 16), lut_entries=4, lut_bits=6, acc_lsb=-3),
    Datapath(acc_bits=8),
]
SUMS = [(2, 6), (3, 5), (5, 4), (6, 4), (8, 3)]
CONVERTERS = [
    (Datapath(), "clamp"),
    (Datapath(acc_bits=8), "clamp"),
    (Datapath(acc_bits=16), "flush"),
    (Datapath(LNSFormat(6, 4), acc_bits=12), "clamp"),
    (Datapath(LNSFormat(5, 1), acc_bits=26), "flush"),
]
LOGS = [
    LogDatapath(),
    LogDatapath(acc_bits=12),
    LogDatapath(tables="shift"),
    LogDatapath(LNSFormat(7, 4), acc_bits=9, acc_gamma=8, tables="coarse:2", offset=100, underflow="saturate"),
]


@dataclass(frozen=True)
class Claim:
    """What is claimed of a design.

    Attributes:
        design: whose top module has an output that is claimed to be 1, ``holds``.
        how: options of Yosys' sat.
        inside: wires of the top module, which nothing drives, and what within the design they are.
    """

    design: Design
    how: str = ""
    inside: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """What is claimed."""
        return self.design.name


def claims() -> list[Claim]:
    """Lanes, trees of so many numbers of so many bits, converters, the flow of either microarchitecture; products and
    sums in the log domain.
    """
    return [
        *(lane(d) for d in DATAPATHS),
        *(tree(n, w) for n, w in SUMS),
        *(converter(d, underflow) for d, underflow in CONVERTERS),
        *(flow(m) for m in MICROARCHITECTURES),
        *(log_product(d) for d in LOGS),
        *(log_sum(d) for d in LOGS),
    ]


def _claim(design: Design, name: str, top: str, wanted: tuple[str, ...], **more) -> Claim:
    """A claim's module, with some of a design's parameters."""
    parameters = tuple((key, value) for key, value in design.parameters if key in wanted)
    sources = (*design.sources, f"formal/{top}.sv")
    return Claim(Design(name, top, sources, parameters, design.corrections), **more)


def lane(d: Datapath) -> Claim:
    """That a lane is the specification's."""
    wanted = ("BITS", "GAMMA", "LUT_ENTRIES", "LUT_BITS", "ACC_LSB")
    return _claim(pe(d), f"a lane of {d}", "lane_claim", wanted)


def tree(n: int, w: int) -> Claim:
    """That a tree adds n numbers of w bits."""
    sources = (*pe(Datapath()).sources, "formal/sum_claim.sv")
    return Claim(Design(f"the sum of {n} numbers of {w} bits", "sum_claim", sources, (("N", n), ("W", w))))


def converter(d: Datapath, underflow: str) -> Claim:
    """That codes rise with accumulators, at every scale, and that the negative accumulator has the negative code."""
    design = datapath(d, converter=AccumulatorConverter(d.format, underflow))
    wanted = ("BITS", "GAMMA", "ACC_BITS", "SCALE_BITS", "FLUSH")
    f = d.format
    name = f"{f.bits}-bit gamma {f.gamma} codes of {d.acc_bits} bits ({underflow}) are monotone and symmetric"
    return _claim(design, name, "convert_claim", wanted, how="-seq 3 -prove-skip 2")


def flow(microarchitecture: str) -> Claim:
    """That a result stands still until it is taken, and that queues hold all that are under way: by induction."""
    d = Datapath(LNSFormat(3, 2), vector_size=1, lut_bits=4, acc_bits=4, acc_lsb=1)
    inside = {name: f"u_dut.{name}" for name in ("pe_valid", "pe_entry", "pe_acc", "advance")}
    inside |= {name: f"u_dut.u_pe.u_shell.{name}" for name in ("valids", "lasts")}
    inside |= {"under_way": "u_dut.u_pe.u_shell.g_queue.under_way"}
    for mine, queue in (("", "u_pe.u_shell.g_queue.u_results"), ("scale_", "u_scales")):
        inside |= {f"{mine}{name}": f"u_dut.{queue}.{name}" for name in ("head", "tail")}
    return _claim(
        datapath(d, microarchitecture),
        f"results of {microarchitecture} stand still until taken, and queues hold all that are under way",
        "flow_claim",
        ("BITS", "GAMMA", "LUT_BITS", "ACC_BITS", "ACC_LSB", "ROM"),
        how="-tempinduct -seq 1",
        inside=tuple(inside.items()),
    )


def log_product(d: LogDatapath) -> Claim:
    """That a product in the log domain is the specification's."""
    wanted = ("BITS", "GAMMA", "ACC_BITS", "ACC_GAMMA", "OFFSET", "SATURATE")
    return _claim(log_pe(d), f"a product of {d}", "log_product_claim", wanted)


def log_sum(d: LogDatapath) -> Claim:
    """That sums in the log domain commute, leave a number that zero is added to, and lie where their signs say."""
    return _claim(log_pe(d), f"sums of {d} commute and are bounded", "log_claim", ("ACC_BITS", "SATURATE"))


def prove(claim: Claim) -> None:
    """Raises RuntimeError where the claim does not hold, or as :func:`csrc.rtl.synthesis.yosys.run`."""
    top = claim.design.top
    connected = "\n".join(f"connect -set {wire} {inner}" for wire, inner in claim.inside)
    yosys.run(
        claim.design,
        f"""
        hierarchy -top {top}
        proc
        flatten
        memory
        cd {top}
        {connected}
        cd ..
        opt -full
        techmap
        opt
        sat -verify {claim.how} -prove holds 1 {top}
    """,
    )
