"""Block scales, and operands of two formats: a PE that takes numbers as MX formats have them.

Run it: python docs/guides/block_scales.py (a few seconds)
"""

import torch
import torch.nn.functional as F

import lns_sim
from lns_sim import Datapath, LNSFormat, recipes

# 1. Numbers. The chip multiplies activations of 6 bits (gamma 4, 7.75 octaves) by weights of 4 bits (gamma 1, 7
#    octaves). Either side has one scale for the tensor, and for every 32 numbers along K a shift of up to 15 octaves.
activations, weights = LNSFormat(6, 4), LNSFormat(4, 1)
torch.manual_seed(0)
x = torch.randn(64, 512) * torch.exp2(-torch.arange(512) // 64)  # features of very different size
w = torch.randn(512, 32)
a = lns_sim.quantize(x, activations, dim=1, block=32)
b = lns_sim.quantize(w, weights, dim=0, block=32)
print(f"shifts of the first row's blocks: {a.shifts[0].tolist()}")

# 2. The datapath. Its format has the finer gamma and room for both; lanes, constants and accumulator are the chip's.
#    A vector's sum is shifted by both blocks' shifts before it is accumulated.
pe = Datapath(LNSFormat.holding(activations, weights), vector_size=32, acc_bits=20)
print(f"datapath of {pe.format.bits} bits, gamma {pe.format.gamma}; on this CPU by {pe.path(64, 32, blocks=True)}")


def error(y: torch.Tensor) -> float:
    """Relative to float32, of the columns that small features decide."""
    return ((y - x[:, 256:] @ w[256:]).norm() / (x[:, 256:] @ w[256:]).norm()).item()


def small(q: lns_sim.LNSTensor) -> lns_sim.LNSTensor:
    """One scale for all of x, as without blocks; only the small features are multiplied."""
    return lns_sim.LNSTensor(q.codes[:, 256:], q.scale, q.format)


with_blocks = lns_sim.BlockTensor(a.codes[:, 256:], a.scale, activations, a.shifts[:, 8:], 1, 32)
right = lns_sim.quantize(w[256:], weights, dim=0, block=32)
print(f"small features, with blocks: off by {100 * error(lns_sim.matmul(with_blocks, right, pe)):.0f} %")
one_scale = small(lns_sim.quantize(x, activations))
print(f"small features, one scale: off by {100 * error(lns_sim.matmul(one_scale, right, pe)):.0f} %")

# 3. One dot product, step by step: Z is Y over 2^(7 + s_a + s_b), with constants of 8 bits.
trace = lns_sim.trace_dot(a[0], b[:, 0], pe)
print(f"last vector: Y {trace.vectors[-1].Y}, shift {a.shifts[0, -1] + b.shifts[-1, 0]}, Z {trace.vectors[-1].Z}")

# 4. Training: a recipe with blocks, each pass along its own K. Weights live in 16 bits.
recipe = recipes.lns_madam_blocks(6)
net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 4))
batch, labels = torch.randn(256, 64), torch.randint(0, 4, (256,))
print(lns_sim.compare(net, lambda m: F.cross_entropy(m(batch), labels), recipe).verdict())
model = lns_sim.convert(net, recipe)
optimizer = lns_sim.optim.LNSMadam(model.parameters(), lr=1 / 32)
for step in range(61):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(batch), labels)
    loss.backward()
    optimizer.step()
    if step % 20 == 0:
        print(f"step {step}: loss {loss.item():.2f}")
