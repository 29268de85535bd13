"""Projects that simulate low-precision arithmetic, where they are installed (`pip install lns-sim[peers]`)."""

from __future__ import annotations

from collections.abc import Iterator

import torch

import lns_sim
from benchmarks.harness import Measurement, paired


def _qtorch() -> Iterator[Measurement]:
    from qtorch.quant import float_quantize

    x = torch.randn(1 << 22)
    ratio, ours, theirs = paired(
        lambda: lns_sim.quantize(x), lambda: float_quantize(x, exp=4, man=3, rounding="nearest")
    )
    yield Measurement(
        "peers",
        "quantize 4 M floats against qtorch float_quantize (FP8)",
        ratio,
        None,
        unit="x qtorch",
        seconds=ours,
        peer_seconds=theirs,
        macs=x.numel(),
    )


def _xlnstorch() -> Iterator[Measurement]:
    import xlnstorch

    m = 64  # some 10 ns a MAC
    x, y = torch.randn(m, m), torch.randn(m, m)
    a, b = lns_sim.quantize(x), lns_sim.quantize(y)
    p, q = xlnstorch.lnstensor(x), xlnstorch.lnstensor(y)
    ratio, ours, theirs = paired(lambda: lns_sim.matmul(a, b), lambda: p @ q, rounds=3)
    yield Measurement(
        "peers",
        f"matmul {m}^3 against xlnstorch",
        ratio,
        None,
        unit="x xlnstorch",
        seconds=ours,
        peer_seconds=theirs,
        macs=m**3,
    )


PEERS = {"qtorch": _qtorch, "xlnstorch": _xlnstorch}


def peers() -> Iterator[Measurement]:
    """What was found, and how fast it is; says what was not."""
    for name, measure in PEERS.items():
        try:
            rows = list(measure())
        except ImportError as error:
            print(f"peer {name}: not found ({error})")
        except Exception as error:  # a peer's own failure (it does not build, or wants another torch) is not ours
            print(f"peer {name}: installed, but fails: {type(error).__name__}: {str(error).splitlines()[0]}")
        else:
            print(f"peer {name}: found")
            yield from rows
