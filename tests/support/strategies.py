"""Hypothesis strategies for formats and datapaths."""

from hypothesis import assume
from hypothesis import strategies as st

from lns_sim import Datapath, LNSFormat, LogDatapath, LogTables


@st.composite
def formats(draw, max_bits=12):
    bits = draw(st.integers(2, max_bits))
    return LNSFormat(bits, 1 << draw(st.integers(0, min(bits - 1, 6))))


@st.composite
def datapaths(draw, fmt=None, whole_lut=False, foreign=False):
    """Any datapath; with ``whole_lut`` one constant of at most 8 bits for each remainder; ``foreign`` ones differ from
    the paper's.
    """
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
    if foreign:
        offset = draw(st.sampled_from([0, fmt.gamma, 1, fmt.e_max + 1, -3 * fmt.gamma - 1]))
        offset = max(-2 * fmt.e_max, min(offset, 2 * fmt.e_max))
        low, high = sorted(draw(st.tuples(*2 * [st.integers(-offset, 2 * fmt.e_max - offset)])))
        options |= dict(
            product_offset=offset,
            product_range=draw(st.sampled_from([None, (low, high)])),
            bin_bits=draw(st.none() | st.integers(2, 40)),
            keep_fraction=options["rounding"] == "truncate" and draw(st.booleans()),
        )
        if options["product_range"] is not None:
            options["product_underflow"] = draw(st.sampled_from(["flush", "saturate"]))
        if options["bin_bits"] is not None:
            options["bin_overflow"] = draw(st.sampled_from(["saturate", "wrap"]))
            options["bins"] = draw(st.sampled_from(["joint", "signed"]))
        if draw(st.booleans()):
            entries, largest = options["lut_entries"], (1 << options["lut_bits"]) - 1
            options["lut_constants"] = draw(st.lists(st.integers(1, largest), min_size=entries, max_size=entries))
    try:
        default = Datapath(fmt, **options)
        return Datapath(fmt, acc_lsb=default.lsb + draw(st.integers(-6, 6)), **options)
    except ValueError:  # constants too wide for lut_bits, or sums too wide for 62 bits
        assume(False)


@st.composite
def log_tables(draw):
    """Correction tables of every kind."""
    entries = st.lists(st.integers(0, 400), min_size=1, max_size=70)

    def points(first):
        distances = st.lists(st.integers(2, 150), min_size=1, max_size=4, unique=True).map(sorted)
        return [(d, draw(st.integers(0, 300))) for d in (first, *draw(distances))]

    kind = draw(st.sampled_from(["exact", "shift", "coarse", "segments", "lists"]))
    if kind == "coarse":
        return LogTables.coarse(draw(st.integers(1, 6)))
    if kind == "segments":
        return LogTables.segments(points(0), points(draw(st.integers(0, 1))))
    return LogTables.lists(draw(entries), draw(entries)) if kind == "lists" else LogTables(kind)


@st.composite
def log_datapaths(draw, fmt=None):
    """Any datapath that adds logarithms; some flush or saturate often, some never."""
    fmt = draw(formats()) if fmt is None else fmt
    options = dict(
        acc_bits=draw(st.integers(6, 20)),
        acc_gamma=fmt.gamma << draw(st.integers(0, 5)),
        headroom_bits=draw(st.integers(0, 12)),
        tables=draw(log_tables()),
        vector_size=draw(st.sampled_from([1, 2, 3, 8, 16, 33, 64])),
        order=draw(st.sampled_from(["sequential", "tree"])),
        underflow=draw(st.sampled_from(["flush", "saturate"])),
    )
    try:
        default = LogDatapath(fmt, **options)
        return LogDatapath(fmt, offset=default.product_offset + draw(st.integers(-99, 99)), **options)
    except ValueError:  # no product in the accumulator's range
        assume(False)
