"""The bare numbers that the library hands to its compiled extension: the names of their fields, in order.

The extension has names of its own (csrc/core/encoding.h, csrc/gemm/product.h); it is refused unless they are these.
"""

from __future__ import annotations

from types import ModuleType

VERSION = 1  # to be raised when a field changes its meaning but not its name
DATAPATH = (
    "bits",
    "gamma",
    "vector_size",
    "lut_entries",
    "lut_bits",
    "acc_bits",
    "acc_lsb",
    "rounding",
    "overflow",
    "product_offset",
    "product_low",
    "product_high",
    "product_underflow",
    "bin_bits",
    "bin_overflow",
    "bins",
    "keep_fraction",
    "lut_constants",  # how many follow
)
LOG_MARKER = -1  # of a log-domain datapath, where a linear one has its bits
LOG_DATAPATH = (
    "marker",
    "bits",
    "gamma",
    "vector_size",
    "acc_bits",
    "acc_gamma",
    "offset",
    "order",
    "underflow",
    "tables",
    "drop",
    "plus",  # how many integers of given tables follow, of plus and then of minus
    "minus",
)
COUNTERS = ("vectors", "saturations", "zero_lanes", "vanished", "cancelled")
RANDOM_STATE = ("seed", "step", "tensor_id", "first_element")
MADAM = ("beta", "one_minus_beta", "bias_correction", "bound", "codes_per_unit")

SEED, STEP, TENSOR_ID, FIRST_ELEMENT = map(RANDOM_STATE.index, RANDOM_STATE)


def in_order(names: tuple[str, ...], values: dict) -> list:
    """The values of all the names and no others, in the names' order."""
    if len(values) != len(names):
        raise KeyError(f"got {', '.join(values)} for {', '.join(names)}")
    return [values[name] for name in names]


def mismatch(extension: ModuleType) -> str | None:
    """What the extension means by its numbers, where it is not what the library means."""
    ours = {
        "version": VERSION,
        "datapath": DATAPATH,
        "log_datapath": LOG_DATAPATH,
        "counters": COUNTERS,
        "random_state": RANDOM_STATE,
        "madam": MADAM,
    }
    theirs = getattr(extension, "contract", {})
    for name, value in ours.items():
        if theirs.get(name) != value:
            return f"it takes {name} as {theirs.get(name)}, not {value}"
    return None
