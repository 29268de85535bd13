"""First steps: codes, a product on the datapath, what it lost, and where.

Run it: python docs/guides/first_steps.py
"""

import torch

import lns_sim
from lns_sim import Datapath, LNSFormat

torch.manual_seed(0)
x, w = torch.randn(64, 512), torch.randn(512, 10) / 512**0.5

# 1. Codes. A number is a sign and a logarithm in steps of 1/gamma octave; a tensor has one power-of-two scale.
q = lns_sim.quantize(x, LNSFormat(8, 8))
error = (q.dequantize() - x).norm() / x.norm()
print(f"{q.format}: {q.codes.dtype} codes, scale 2^{int(q.k)}, relative error {error:.3f}")

# 2. A product on the processing element, and what happened in it.
y, counters = lns_sim.matmul(q, lns_sim.quantize(w), counters=True)
fake = q.dequantize() @ lns_sim.quantize(w).dequantize()
print(f"datapath against the same codes in float32: {(y - fake).norm() / fake.norm():.4f}")
print(
    f"{counters.macs:,} products, {counters.vanished / counters.macs:.1%} below the accumulator's LSB, "
    f"{counters.saturations} saturations"
)

# 3. A smaller datapath: what does a bit of the accumulator, or an entry of the LUT, cost?
for options in (dict(acc_bits=20), dict(acc_bits=16), dict(lut_entries=4), dict(lut_entries=1)):
    small = lns_sim.matmul(q, lns_sim.quantize(w), Datapath(**options))
    print(f"{options}: {(small - fake).norm() / fake.norm():.4f}")

# 4. One dot product, step by step, as the hardware does it.
print(lns_sim.trace_dot(q[0, :4], lns_sim.quantize(w)[:4, 0]))
