"""Describing the processing element of your own chip: which words there are for it, what one dot product does on it,
and how far its results lie from exact ones.

Run it: python docs/guides/your_own_chip.py (a few seconds)
"""

from itertools import islice

import torch

import lns_sim
from lns_sim import AccumulatorConverter, Datapath, LNSFormat, LogDatapath, LogTables
from lns_sim.golden import make_vectors

torch.manual_seed(0)
x, w = torch.randn(64, 256), torch.randn(256, 32)


def show(title, pe, a, b):
    """One dot product, step by step."""
    print(f"\n{title}\n  {pe!r}")
    print("\n".join(f"  {line}" for line in str(lns_sim.trace_dot(a, b, pe)).splitlines()))


def noise(pe):
    """Of a matrix product, beside the exact sums of the same codes."""
    p, q = lns_sim.quantize(x, pe.format), lns_sim.quantize(w, pe.format)
    exact = p.dequantize().double() @ q.dequantize().double()
    error = lns_sim.matmul(p, q, pe).double() - exact
    print(f"  its noise: {20 * torch.log10(exact.norm() / error.norm()):.1f} dB below the sums of the same codes")


# Codes of a short dot product: a sign bit over an exponent e, worth 2^(e / 8).
a, b = [112, 104, 128 | 101], [80, 88, 80]

# 1. The paper's (LNS-Madam): products are shifted ones, summed in a bin for each remainder, and multiplied by a
#    constant a bin; then an integer accumulator. All arguments: help(lns_sim.Datapath).
paper = Datapath(vector_size=3)
show("the paper's, in vectors of 3 lanes", paper, a, b)
noise(paper)

# 2. One that never leaves the logarithm: the sum of two logarithms is the larger one, corrected by their distance.
#    Tables may be exact, coarse, bit shifts, straight lines, or your ROM's; the order of additions is yours, too.
lines = LogTables.segments(
    plus=[(0, 32), (32, 19), (64, 10), (96, 5), (208, 0)],
    minus=[(1, 177), (2, 146), (4, 115), (8, 85), (16, 57), (32, 32), (64, 13), (128, 3), (208, 0)],
)
log = LogDatapath(acc_bits=12)
show("log-domain, 12 bits, exact tables", log, a, b)
noise(log)
log = LogDatapath(acc_bits=12, tables=lines, order="tree", vector_size=4)
show("log-domain, 12 bits, straight lines, a tree", log, a, b)
noise(log)

# 3. One of somebody else's: codes with a bias, bins of their own for either sign that overflow, nothing aligned, and a
#    converter of its own back to codes (docs/arithmetic.md, "Other processing elements").
own = Datapath(
    LNSFormat(9, 8),
    vector_size=4,
    lut_bits=9,
    product_offset=130,
    product_range=(-64, 63),
    bins="signed",
    bin_bits=20,
    bin_overflow="wrap",
    acc_bits=32,
    acc_lsb=-16,
    keep_fraction=True,
)
converter = AccumulatorConverter(own.format, underflow="flush", exponents=(1, 128), offset=65, mantissa_bits=9)
a9, b9 = [70, 66, 256 | 64], [60, 66, 62]
show("signed bins and a converter", own, a9, b9)
acc = lns_sim.trace_dot(a9, b9, own).accumulator
print(f"  the code of its accumulator {acc}: {converter.convert(torch.tensor([acc]), own.lsb).item()}")

# 4. One whose operands have block scales: the datapath is a linear one, its vectors lie within blocks of K, and the
#    shifts of both sides are taken off when a vector is aligned (docs/arithmetic.md, section 8).
small = Datapath(LNSFormat(4, 2), vector_size=16)
exact = x.double() @ w.double()
print(f"\nblock scales\n  {small!r}")
for block in (None, 32):
    p, q = (
        lns_sim.quantize(t, small.format, dim=d if block else None, block=block, underflow="flush")
        for t, d in ((x, 1), (w, 0))
    )
    error = lns_sim.matmul(p, q, small).double() - exact
    name = f"blocks of {block}" if block else "a scale for a tensor"
    print(f"  4 bits, {name}: {20 * torch.log10(exact.norm() / error.norm()):.1f} dB below float32's sums")

# Its vectors for your RTL: codes and the shift of every vector's block, corner cases or random ones; the same from a
# shell: lns-sim vectors golden --bits 4 --gamma 2 --vector-size 16 --source corner --block 32 (docs/golden.md).
vectors = make_vectors(small, "corner", k=80, block=32)  # two whole blocks, and half a one
at = vectors.names.index("shifts in turn, of either side")
p, q = next(islice(vectors.operands, at, None))
print(f"  {len(vectors.a)} corner cases, of which {vectors.coverage['saturated']} saturate; number {at}:")
print(f"  shifts {vectors.shifts[0][at].tolist()} and {vectors.shifts[1][at].tolist()}, two vectors a block")
print("\n".join(line for line in str(lns_sim.trace_dot(p, q, small)).splitlines() if line.startswith("  Y")))

# Whatever you have described trains, in all passes or in one: recipes.lns_madam(datapath=pe), Recipe(forward=pe, ...),
# or a file (docs/recipes.md), and has golden vectors for your RTL.
