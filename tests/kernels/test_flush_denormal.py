"""Results do not depend on the caller's float environment: operators compute with subnormal numbers whatever torch is
told.
"""

import pytest
import torch
from test_ops import DATAPATH, ONE, RNG, codes, ops

N = 40_000  # several threads' work
SMALL = torch.tensor(2.0**-126)


def tiny(n):
    return torch.randint(1, 1 << 23, (n,)).to(torch.int32).view(torch.float32)


def madam_step(weights, moment, *args):
    weights, moment = weights.clone(), moment.clone()
    ops.madam_step(weights, moment, *args)
    return weights, moment


def madam(stochastic):
    hyper = torch.tensor([0.9, 0.1, 0.5, 10.0, 300.0])
    weights = torch.full((N,), 9000, dtype=torch.int16)
    return madam_step, (weights, tiny(N), torch.randn(N) * 1e-19, ONE, 1e4 * ONE, hyper, 16, 2048, stochastic, RNG)


CASES = {
    "quantize": (ops.quantize, (tiny(N), 8, 8, None, 0, 2, RNG)),
    "dequantize": (ops.dequantize, (codes(N) & 135, SMALL / 2**10, 8, 8)),
    "dequantize short runs": (ops.dequantize, (codes(N // 8, 8) & 135, SMALL.expand(N // 8, 1) / 2**10, 8, 8)),
    "rescale": (ops.rescale, (codes(N), SMALL, ONE, 8, 8, 2, RNG)),
    "round_to_powers": (ops.round_to_powers, (tiny(N), SMALL / 2, 7, True, True, RNG)),
    "scale_to_largest": (ops.scale_to_largest, (tiny(N), 448.0)),
    "quantize_integers": (ops.quantize_integers, (tiny(N // 8 * 8).view(-1, 4, 2), 1, 63, 4, True, False, RNG)),
    "quantize_integers, values": (ops.quantize_integers, (tiny(N), None, 127, 1, False, True, None)),
    "quantize_float8": (ops.quantize_float8, (tiny(N), SMALL, True)),
    "dequantize_float8": (ops.dequantize_float8, (codes(N) & 191, SMALL / 2**10, False)),
    "matmul": (
        ops.matmul,
        (codes(90, 70), SMALL.expand(90, 1), codes(70, 80), ONE.expand(1, 80) / 2**40, 8, 8, DATAPATH, False, False),
    ),
    "madam_step": madam(False),
    "madam_step, stochastic": madam(True),
}


def bits(result):
    tensors = result if isinstance(result, tuple) else (result,)
    return [t.view(torch.int32) if t.dtype == torch.float32 else t for t in tensors]


@pytest.mark.parametrize("op, args", CASES.values(), ids=CASES)
@pytest.mark.parametrize("threads", [1, 2])
def test_flushing_denormals_changes_nothing(op, args, threads):
    before, results = torch.get_num_threads(), []
    torch.set_num_threads(threads)
    try:
        for flush in (False, True):
            if not torch.set_flush_denormal(flush):
                pytest.skip("this processor has no mode that flushes denormals to zero, so no program can switch it on")
            results.append(bits(op(*args)))
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
