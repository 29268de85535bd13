"""Datapaths of either kind: linear, or adding logarithms. Whatever takes one takes both, by what they have in common:
``format``, ``vector_size``, ``acc_bits``, ``encode``, ``path``, ``label``, ``narrowed``; and what they report about a
run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from lns_sim import contract
from lns_sim.datapath import Datapath
from lns_sim.format import LNSFormat
from lns_sim.log_datapath import LogDatapath

AnyDatapath = Datapath | LogDatapath
KINDS: dict[str, type[AnyDatapath]] = {kind.__name__: kind for kind in (Datapath, LogDatapath)}


def check_datapath(datapath: Any) -> None:
    """Raises TypeError for anything but a datapath of either kind."""
    if not isinstance(datapath, (Datapath, LogDatapath)):
        raise TypeError(f"datapath must be a Datapath or a LogDatapath, got {datapath!r}")


def from_fields(fields: Mapping[str, Any]) -> AnyDatapath:
    """The datapath of ``dataclasses.asdict``; only log-domain ones have tables.

    Raises:
        TypeError, ValueError: they are no datapath's.
    """
    kind = LogDatapath if "tables" in fields else Datapath
    return kind(**{**fields, "format": LNSFormat(**fields["format"])})


@dataclass(frozen=True)
class Counters:
    """What happened in a datapath.

    Attributes:
        macs: products, M * N * K.
        vectors: accumulations, one per vector of lanes.
        saturations: accumulations whose result left ``acc_bits`` (and was saturated or wrapped), and bins that left
            ``bin_bits``.
        narrowed: all that could have: accumulations, with ``bin_bits`` the bins of every vector, too; on a
            :class:`lns_sim.LogDatapath` products and sums, one each a MAC.
        zero_lanes: products with a zero operand (padding of the last vector not counted).
        vanished: products of non-zero operands that lie under the accumulator's LSB, or are flushed.
        cancelled: additions of a number and its negative, on a :class:`lns_sim.LogDatapath`, whose saturations and
            vanished are of products and of sums.
    """

    macs: int = 0
    vectors: int = 0
    saturations: int = 0
    zero_lanes: int = 0
    vanished: int = 0
    cancelled: int = 0
    narrowed: int = 0

    @classmethod
    def from_tensor(cls, macs: int, counters: torch.Tensor, datapath: AnyDatapath) -> Counters:
        """Reads the int64 tensor that the operators return of a datapath."""
        found = cls(macs, **dict(zip(contract.COUNTERS, counters.tolist())))
        return replace(found, narrowed=datapath.narrowed(macs, found.vectors))

    def __add__(self, other: Counters) -> Counters:
        return Counters(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))
