"""Datapaths of either kind: linear, or adding logarithms. Whatever takes one takes both, by what they have in common:
``format``, ``vector_size``, ``acc_bits``, ``encode``, ``path``, ``label``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
