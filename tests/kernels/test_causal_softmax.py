"""Softmax under a causal mask straight to codes: kernels on a GPU have the bits of torch's functions and quantizers."""

import pytest
import torch
from helpers import HAVE_CUDA, same_bits

from lns_sim import LNSFormat
from lns_sim.ops import causal_softmax
from lns_sim.quantizers import LNS

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not HAVE_CUDA, reason="no GPU, or built without CUDA kernels")]
ops = torch.ops.lns_sim
LENGTHS = [1, 2, 5, 31, 32, 40, 100, 128, 129, 512, 700, 1000, 1024, 1032, 1100, 1500, 1536, 2044, 2048]


KERNELS = tuple(
    getattr(ops, f"causal_{name}") for name in ("probabilities", "probability_values", "errors", "rescale", "values")
)
FUNCTIONS = (
    causal_softmax._probabilities,
    causal_softmax._probability_values,
    causal_softmax._errors,
    causal_softmax._rescale,
    causal_softmax._values,
)


def both(length, first, rows, q, change=lambda x: x):
    """Scales, codes and values by the kernels, and by torch's functions."""
    torch.manual_seed(length)
    seen = min(first + rows, length)
    products, gradients = (change(torch.randn(2, 3, rows, seen, device="cuda") * size) for size in (20, 1e-3))
    one, codes = torch.ones((), device="cuda"), (2, 3, rows + 1, length)  # a row is left as it is
    found = []
    for probabilities, probability_values, errors, rescale, values in (KERNELS, FUNCTIONS):
        scale, scales = q.quantize(one, None, -1)[1], torch.zeros(codes[:-1], device="cuda")
        described = causal_softmax._described(q)
        p = probabilities(products, 0.3, first, length, scale, *described)
        p_codes, e_codes = (torch.zeros(codes, dtype=q.dtype, device="cuda") for _ in range(2))
        of_rows = tuple(x[:, :, 1:] for x in (p_codes, e_codes, scales))
        errors(products, gradients, 0.3, first, scale, *of_rows, *described, *described)
        e_values = values(of_rows[1][..., :seen], of_rows[2], scales.amax(), *described[:3])
        move = causal_softmax._rescale if first else rescale  # which moves what the first queries see
        move(of_rows[1], of_rows[2], scales.amax(), *described[:3])
        p_values, again = products.clone(), products.clone()
        probability_values(p_values, 0.3, first, length, scale, *described)
        others = torch.zeros_like(e_codes), torch.zeros_like(scales)
        of_rows = tuple(x[:, :, 1:] for x in others)
        errors(again, gradients, 0.3, first, scale, again, *of_rows, *described, *described)
        move(of_rows[0], of_rows[1], of_rows[1].amax(), *described[:3])
        found.append((scale, scales.amax(), p, p_codes, e_codes, p_values, e_values, again, others[0]))
    return found


@pytest.mark.parametrize("length", LENGTHS)
def test_kernels_have_the_bits_of_torch(length):
    assert causal_softmax._has_kernel(torch.empty(0, device="cuda"), length)
    for first, rows in ((0, length), (length // 3, 50), (length + 3, 7)):
        for found, expected in zip(*both(length, first, rows, LNS())):
            assert same_bits(found.cpu(), expected.cpu()), (first, rows)


@pytest.mark.parametrize(
    "q", [LNS(underflow="flush"), LNS(LNSFormat(12, 64)), LNS(LNSFormat(4, 1)), LNS(LNSFormat(8, 8), thresholds=None)]
)
def test_kernels_of_other_formats(q):
    for found, expected in zip(*both(300, 0, 300, q)):
        assert same_bits(found.cpu(), expected.cpu())


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_number_that_is_none_makes_every_scale_nan(value):
    def change(x):
        x[0, 1, 17, 3] = value
        return x

    for scale, largest, *_ in both(40, 0, 40, LNS(), change):
        assert scale.isnan() and largest.isnan()


def test_gradients_of_zeros_have_no_scale():
    for found in both(40, 0, 40, LNS(), torch.zeros_like):
        assert found[1] == 0 and not found[4].any()
