"""Every intermediate of a dot product on the datapath."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from lns_sim import reference, reference_log
from lns_sim.block_tensor import BlockTensor
from lns_sim.datapath import Datapath
from lns_sim.datapaths import AnyDatapath, check_datapath
from lns_sim.format import LNSFormat
from lns_sim.log_datapath import LogDatapath
from lns_sim.reference import VectorTrace
from lns_sim.reference_log import LogVectorTrace
from lns_sim.tensor import LNSTensor


def code_list(name: str, codes, format: LNSFormat) -> list[int]:
    """One dimension of codes as unsigned integers, of a datapath's format.

    Args:
        name: of the argument.
        codes: an LNSTensor, or integers, which are codes of the datapath's format.
        format: the datapath's.

    Raises:
        TypeError: not integers. ValueError: not one-dimensional, empty, or a code out of range.
    """
    own = format
    if isinstance(codes, LNSTensor):
        codes, own = codes.codes, codes.format
    format.check_holds(name, own)
    values = codes.detach().cpu().numpy() if isinstance(codes, torch.Tensor) else np.asarray(codes)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"{name} must be one-dimensional and not empty, got shape {values.shape}")
    if values.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold integer codes, got {values.dtype}")
    bits = own.bits
    if values.dtype == np.int16:  # the storage of formats above 8 bits: a bit pattern
        values = values.astype(np.int64) & 0xFFFF
    if values.min() < 0 or values.max() >= 1 << bits:
        raise ValueError(f"{name} must hold codes from 0 to {(1 << bits) - 1}, got {values.min()} to {values.max()}")
    return [int(v) for v in reference.recode(values, own, format)]


def _shifts(a, b, datapath: AnyDatapath) -> list[tuple[int, int]] | None:
    """a's and b's of every vector, where an operand has block scales."""
    blocks = [t for t in (a, b) if isinstance(t, BlockTensor)]
    if blocks and isinstance(datapath, LogDatapath):
        raise ValueError("an operand has blocks along K, which a LogDatapath has no shifts for")
    size = datapath.vector_size
    for t in blocks:
        if t.block % size:
            raise ValueError(f"blocks of {t.block} elements are no multiple of the datapath's vector_size = {size}")
    if not blocks:
        return None
    of = [
        [int(t.shifts[i // t.block]) if isinstance(t, BlockTensor) else 0 for i in range(0, len(a), size)]
        for t in (a, b)
    ]
    return list(zip(*of))


@dataclass(frozen=True)
class DotTrace:
    """What a dot product did, one :class:`lns_sim.reference.VectorTrace` for each vector of lanes, or
    :class:`lns_sim.reference_log.LogVectorTrace`; with block scales also a's and b's shift of each vector.
    """

    vectors: list[VectorTrace] | list[LogVectorTrace]
    shifts: list[tuple[int, int]] | None = None

    @property
    def accumulator(self) -> int:
        """The accumulator at the end."""
        return self.vectors[-1].acc

    def __str__(self) -> str:
        lines = []
        for i, v in enumerate(self.vectors):
            lines.append(f"vector {i}")
            if isinstance(v, LogVectorTrace):
                lines += [f"  {name:8} {' '.join(map(str, getattr(v, name)))}" for name in ("products", "sums")]
                fates = [f"{n} {name}" for name in ("flushed", "saturated", "cancelled") if (n := getattr(v, name))]
                lines.append(f"  acc {v.acc}" + (f"  ({', '.join(fates)})" if fates else ""))
                continue
            for name, values in (("p", v.p), ("q", v.q), ("r", v.r), ("lane", v.lanes), ("bins", v.bins)):
                lines.append(f"  {name:4} {' '.join(map(str, values))}")
            step = "  s_a {}  s_b {}".format(*self.shifts[i]) if self.shifts else ""
            lines.append(f"  Y {v.Y}{step}  Z {v.Z}  acc {v.acc}{'  (overflowed)' if v.overflowed else ''}")
        return "\n".join(lines)


def trace_dot(a, b, datapath: AnyDatapath | None = None) -> DotTrace:
    """The intermediates of one dot product, from the plain-Python reference (spec sections 3, 7 and 8).

    Args:
        a, b: K codes each, one-dimensional: an LNSTensor, whose format the datapath's holds and whose blocks, if any,
            are whole vectors, or a tensor of codes or integers of the datapath's format.
        datapath: None for the default one.

    Returns:
        A :class:`DotTrace`; ``print`` shows p, q, r, the lane integers, bins, Y, Z and acc of every vector, and with
        blocks the shifts s_a and s_b that make Z of Y; of a LogDatapath every product, every sum in its order and acc,
        as integers 0 or +-(E - E_min + 1).

    Raises:
        TypeError, ValueError: codes that are none, or of different lengths.
    """
    datapath = Datapath() if datapath is None else datapath
    check_datapath(datapath)
    shifts = _shifts(a, b, datapath)
    a, b = code_list("a", a, datapath.format), code_list("b", b, datapath.format)
    if len(a) != len(b):
        raise ValueError(f"a and b must be of one length, got {len(a)} and {len(b)}")
    if isinstance(datapath, LogDatapath):
        return DotTrace(list(reference_log.trace(a, b, datapath)))
    return DotTrace(list(reference.trace(a, b, datapath, shifts and [sum(pair) for pair in shifts])), shifts)
