"""Hypothesis strategies for formats and datapaths."""

from hypothesis import assume
from hypothesis import strategies as st

from lns_sim import Datapath, LNSFormat


@st.composite
def formats(draw, max_bits=12):
    bits = draw(st.integers(2, max_bits))
    return LNSFormat(bits, 1 << draw(st.integers(0, min(bits - 1, 6))))


@st.composite
def datapaths(draw, fmt=None, whole_lut=False):
    """Any datapath; with ``whole_lut`` one constant of at most 8 bits for each remainder."""
    fmt = draw(formats()) if fmt is None else fmt
    options = dict(
        vector_size=draw(st.sampled_from([1, 3, 8, 16, 32, 33, 64])),
        lut_entries=fmt.gamma if whole_lut else 1 << draw(st.integers(0, fmt.gamma.bit_length() - 1)),
        lut_bits=draw(st.integers(6, 8 if whole_lut else 12)),
        acc_bits=draw(st.integers(8, 32)),
        headroom_bits=draw(st.integers(0, 7)),
        rounding=draw(st.sampled_from(["truncate", "nearest"])),
        overflow=draw(st.sampled_from(["saturate", "wrap"])),
    )
    try:
        default = Datapath(fmt, **options)
        return Datapath(fmt, acc_lsb=default.lsb + draw(st.integers(-6, 6)), **options)
    except ValueError:  # constants too wide for lut_bits, or sums too wide for 62 bits
        assume(False)
