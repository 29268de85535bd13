"""The reference beside what runs: products on every device and instruction set, and a layer's tensors."""

import numpy as np
import torch
from helpers import ISAS, core, everywhere, random_codes, same_bits, to_reference, unsigned

import lns_sim
from lns_sim import LNSWeight, reference


def agree(a, b, datapath):
    """Accumulators and values of both implementations."""
    got = everywhere(lns_sim.matmul, a, b, datapath, return_accumulator=True)
    expected = reference.matmul(to_reference(a), to_reference(b), datapath, return_accumulator=True)
    np.testing.assert_array_equal(got.numpy(), expected)
    values = everywhere(lns_sim.matmul, a, b, datapath)
    assert same_bits(values, reference.matmul(to_reference(a), to_reference(b), datapath))
    return got


def every_isa_agrees(m, k, n, datapath, seed):
    rng = np.random.default_rng(seed)
    a, b = random_codes((m, k), datapath.format, rng), random_codes((k, n), datapath.format, rng)
    core.set_isa(ISAS[0])
    agree(a, b, datapath)
    expected, counters = everywhere(lns_sim.matmul, a, b, datapath, return_accumulator=True, counters=True)
    for isa in ISAS[1:]:
        core.set_isa(isa)
        got, counted = everywhere(lns_sim.matmul, a, b, datapath, return_accumulator=True, counters=True)
        assert torch.equal(got, expected) and counted == counters
        got = everywhere(lns_sim.matmul, b.mT, a.mT, datapath, return_accumulator=True)
        assert torch.equal(got.mT, expected)


def reference_weight(w: LNSWeight):
    r = w.recipe
    return reference.forward_codes(unsigned(w.codes.cpu(), r.update), int(w.k), r.update, r.weight)


def reference_quantize(x, quantizer, w, stream):
    rng = w.rng.tolist() if w.rng is not None else [None, 0, 0]
    return reference.quantize(
        x.detach().cpu().numpy(),
        quantizer.format,
        rounding=quantizer.rounding,
        underflow=quantizer.underflow,
        seed=rng[0],
        step=rng[1],
        tensor_id=rng[2] + stream,
    )


def rounded(dw, w):
    q = w.recipe.gradient
    return reference.dequantize(*reference_quantize(torch.from_numpy(dw), q, w, 2), q.format)
