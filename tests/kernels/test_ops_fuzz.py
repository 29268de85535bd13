"""Operators called directly with hostile arguments: they raise or return, and never crash, hang or touch foreign
memory.
"""

import contextlib
import os
import random
import subprocess
import sys

import pytest
import torch
from helpers import ROOT
from test_ops import CASES, DATAPATH, ONE, RNG, codes, ops

from lns_sim.contract import DATAPATH as FIELDS

SEEDS, ROUNDS = 2, 60  # over all operators
BIG = [-(2**63), -(2**31) - 1, -1, 0, 2**31, 2**40, 2**63 - 1]


def hostile_int(rng, n):
    return rng.choice([n, n - 1, n + 1, *BIG])


def hostile_tensor(rng, t):
    """A tensor that is not what was asked for: of another shape, type, layout, device or content, or in strange
    memory.
    """
    t = t.detach()
    last = t.shape[-1] if t.dim() else 1
    ways = [
        lambda: t[..., : last // 2] if t.dim() else t,
        lambda: t.reshape(-1),
        lambda: t[None],
        lambda: t.new_empty(0),
        lambda: t.new_empty((0, *t.shape)),
        lambda: t.mT if t.dim() > 1 else t,
        lambda: t.to("meta"),
        lambda: t.double(),
        lambda: t.to(torch.int16),
        lambda: t.to(torch.uint8),
        lambda: t.expand(3, *t.shape),
        lambda: t.flip(0) if t.dim() else t,
        lambda: t.new_ones(()),
        lambda: t.new_ones(()).expand(t.shape),
        lambda: t.new_ones(7),
        lambda: t.repeat_interleave(2, 0)[::2] if t.dim() else t,
        lambda: (
            torch.full_like(t, float("nan"))
            if t.is_floating_point()
            else torch.full_like(t, -1 if t.dtype != torch.uint8 else 255)
        ),
        lambda: (
            torch.full_like(t, rng.choice([float("inf"), -1.0, 1e-45, 3e38]))
            if t.is_floating_point()
            else torch.zeros_like(t)
        ),
        lambda: t.to_sparse() if t.dim() else t,
    ]
    return rng.choice(ways)()


def hostile(rng, value, tensors):
    """Another value for an argument."""
    if isinstance(value, torch.Tensor):
        return rng.choice([lambda: hostile_tensor(rng, value), lambda: rng.choice(tensors), lambda: None])()
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return hostile_int(rng, value)
    if isinstance(value, (list, tuple)):
        value = list(value)
        change = rng.randrange(3)
        if value and change < 2:
            i = rng.randrange(len(value))
            value[i] = hostile_int(rng, value[i])
            return value
        return rng.choice([[], value[:-1], [*value, 1], value + value])
    if isinstance(value, str):
        return rng.choice(["", "{}", value[:-2], value.replace("8", "9")])
    return rng.choice([RNG, RNG[:3], RNG.float(), RNG.to("meta"), 5, torch.zeros(8, dtype=torch.int64)[::2]])


def describe(a):
    if isinstance(a, torch.Tensor) and a.layout == torch.strided:
        return f"{tuple(a.shape)} {a.stride()} {a.dtype} {a.device}"
    return a


def run(seed: int, rounds: int) -> None:
    """Calls with one to three hostile arguments each; every error must be an exception."""
    rng = random.Random(seed)
    for _ in range(rounds):
        for op, args in CASES.values():
            args = [a.clone() if isinstance(a, torch.Tensor) else a for a in args]
            tensors = [a for a in args if isinstance(a, torch.Tensor)]
            for i in rng.sample(range(len(args)), min(len(args), rng.randint(1, 3))):
                args[i] = hostile(rng, args[i], tensors)
            print(op._qualified_op_name, [describe(a) for a in args], file=sys.stderr)
            with contextlib.suppress(Exception):
                op(*args)
    print("done")


@pytest.mark.parametrize("seed", range(SEEDS))
def test_no_argument_crashes_an_operator(seed):
    code = f"import test_ops_fuzz; test_ops_fuzz.run({seed}, {ROUNDS})"
    places = os.pathsep.join(map(str, (ROOT, ROOT / "tests/support", ROOT / "tests/kernels")))
    fuzz = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": places},
        timeout=240,
    )
    assert fuzz.returncode == 0 and fuzz.stdout == "done\n", f"exit {fuzz.returncode}: {fuzz.stderr[-1000:]}"


X, W, DY, S = codes(2, 4, 6, 6), codes(6, 2, 3, 3), codes(2, 6, 6, 2), ONE


def conv(x=X, xs=S, w=W, ws=S, stride=(1, 2), padding=(1, 0), dilation=(1, 1), groups=2, datapath=DATAPATH):
    return ops.conv2d(x, xs, w, ws, 8, 8, stride, padding, dilation, groups, datapath, False, False)


def input_gradient(
    size=(2, 4, 6, 6), ws=S, stride=(1, 2), padding=(1, 0), dilation=(1, 1), groups=2, datapath=DATAPATH
):
    return ops.conv2d_input_gradient(
        DY, S, W, ws, 8, 8, size, stride, padding, dilation, groups, datapath, False, False
    )


def weight_gradient(kernel=(3, 3), x=X, stride=(1, 2), padding=(1, 0), dilation=(1, 1), groups=2):
    return ops.conv2d_weight_gradient(
        DY, S, x, S, 8, 8, kernel, stride, padding, dilation, groups, DATAPATH, False, False
    )


def madam(n=3, **other):
    args = dict(
        codes=torch.full((n,), 100, dtype=torch.int16),
        moment=torch.zeros(n),
        grad=torch.ones(n),
        scale=ONE,
        cap=1e4 * ONE,
        hyper=torch.tensor([0.9, 0.1, 0.1, 10.0, 1.5]),
        bits=16,
        gamma=2048,
        stochastic=False,
        rng=None,
    )
    return ops.madam_step(**{**args, **other})


def changed(name, value):
    encoded = list(DATAPATH)
    encoded[FIELDS.index(name)] = value
    return encoded


V = torch.tensor([1.0, 1.05, -0.3])
C = torch.arange(6, dtype=torch.uint8)
SHARED = torch.zeros(3)
REFUSED = {
    "rounding 7": (lambda: ops.quantize(V, 8, 8, None, 7, 0, None), "rounding must be between 0 and 1, got 7"),
    "rounding -1": (lambda: ops.quantize(V, 8, 8, None, -1, 0, None), "rounding must be"),
    "underflow 9": (lambda: ops.quantize(V, 8, 8, None, 0, 9, None), "underflow must be between 0 and 2, got 9"),
    "stochastic without a state": (lambda: ops.quantize(V, 8, 8, None, 1, 0, None), "need rng"),
    "stochastic underflow without a state": (lambda: ops.quantize(V, 8, 8, None, 0, 2, None), "need rng"),
    "bits that wrap around": (lambda: ops.quantize(V, 2**32 + 8, 8, None, 0, 0, None), "bits is out of range"),
    "dim": (lambda: ops.quantize(V, 8, 8, 5, 0, 0, None), "dim is out of range: 5"),
    "dim of a number": (lambda: ops.quantize(ONE, 8, 8, 0, 0, 0, None), "dim is out of range"),
    "rescale, underflow 5": (lambda: ops.rescale(C, ONE, ONE, 8, 8, 5, None), "underflow must be"),
    "rescale, stochastic": (lambda: ops.rescale(C, ONE, ONE, 8, 8, 2, None), "need rng"),
    "rescale, scales": (
        lambda: ops.rescale(C.view(2, 3), torch.ones(2, 1), torch.ones(1, 2), 8, 8, 0, None),
        "new_scale must have the shape of scale",
    ),
    "round_to_powers, stochastic": (lambda: ops.round_to_powers(V, ONE, 7, True, True, None), "need rng"),
    "round_to_powers, octaves": (lambda: ops.round_to_powers(V, ONE, 2**32 + 7, False, False, None), "octaves must be"),
    "scale_to_largest, 0": (lambda: ops.scale_to_largest(V, 0.0), "largest must be positive"),
    "quantize_integers, top": (
        lambda: ops.quantize_integers(V, None, 256, 1, False, False, None),
        "top must be between 1 and 255, got 256",
    ),
    "quantize_integers, groups": (
        lambda: ops.quantize_integers(V, 0, 7, 2**32 + 4, False, False, None),
        "groups must be between 1 and 8",
    ),
    "quantize_integers, shifted values": (
        lambda: ops.quantize_integers(V, 0, 7, 2, False, True, None),
        "values are of nearest symmetric codes",
    ),
    "quantize_float8, scales": (lambda: ops.quantize_float8(V, V, False), "scale must be one number"),
    "dequantize_float8, codes": (lambda: ops.dequantize_float8(V, ONE, False), "codes must be uint8"),
    "madam, stochastic": (lambda: madam(stochastic=True), "need rng"),
    "madam, hyper": (lambda: madam(hyper=torch.zeros(4)), "hyper must hold 5 numbers"),
    "madam, cap": (lambda: madam(cap=torch.ones(3)), "cap must have the shape of scale"),
    "madam, moment": (lambda: madam(moment=torch.zeros(3, 1)), "moment must have the shape of codes"),
    "madam, strided moment": (lambda: madam(moment=torch.zeros(6)[::2]), "must be contiguous"),
    "madam, one memory": (lambda: madam(moment=SHARED, grad=SHARED), "moment must share no memory"),
    "stride 0": (lambda: conv(stride=(0, 1)), "a stride must be between 1 and"),
    "stride 0 of an input gradient": (lambda: input_gradient(stride=(1, 0)), "a stride must be"),
    "negative stride of an input gradient": (lambda: input_gradient(stride=(-1, 1)), "a stride must be"),
    "stride 0 of a weight gradient": (lambda: weight_gradient(stride=(0, 1)), "a stride must be"),
    "huge padding": (lambda: conv(padding=(2**62, 0)), "a padding must be"),
    "dilation 0": (lambda: conv(dilation=(1, 0)), "a dilation must be"),
    "kernel beyond the input": (lambda: conv(dilation=(9, 1)), "larger than the padded input"),
    "kernel of a weight gradient": (lambda: weight_gradient(kernel=(-3, 3)), "a kernel's extent must be"),
    "groups 0": (lambda: conv(groups=0), "groups"),
    "groups 0 of a weight gradient": (lambda: weight_gradient(groups=0), "groups"),
    "groups that overflow": (lambda: conv(groups=2**63 - 1), "groups"),
    "input of other images": (lambda: input_gradient(size=(5, 4, 6, 6)), "dy's shape"),
    "negative input": (lambda: input_gradient(size=(2, 4, -6, 6)), "an input's extent must be"),
    "short scale": (
        lambda: conv(xs=torch.ones(2)),
        "the scale of x must be one number, or vary along dimension 0 alone",
    ),
    "scale along channels": (lambda: conv(xs=torch.ones(1, 4, 1, 1)), "the scale of x"),
    "scale of w in an input gradient": (
        lambda: input_gradient(ws=torch.ones(6, 1, 1, 1)),
        "the scale of w must be .* dimension 1",
    ),
    "empty scale": (lambda: conv(xs=torch.ones(0)), "the scale of x"),
    "a meta scale": (lambda: conv(xs=torch.ones((), device="meta")), "one device"),
    "a meta operand": (lambda: ops.dequantize(C, torch.ones((), device="meta"), 8, 8), "one device"),
    "vector_size 0": (lambda: input_gradient(datapath=changed("vector_size", 0)), "vector_size must be"),
    "an unknown option": (lambda: conv(datapath=changed("overflow", 2)), "an encoded datapath has 2 for overflow"),
    "a field that wraps around": (lambda: conv(datapath=changed("acc_bits", 2**32 + 24)), "for acc_bits"),
    "one integer too many": (
        lambda: conv(datapath=[*DATAPATH, 128]),
        f"with 0 LUT constants is {len(FIELDS)} integers, got {len(FIELDS) + 1}",
    ),
    "one integer too few": (
        lambda: conv(datapath=DATAPATH[:-1]),
        f"is {len(FIELDS)} integers or more, got {len(FIELDS) - 1}",
    ),
    "LUT constants that are missing": (
        lambda: conv(datapath=changed("lut_constants", 8)),
        f"with 8 LUT constants is {len(FIELDS) + 8} integers, got {len(FIELDS)}",
    ),
}


@pytest.mark.parametrize("call, message", REFUSED.values(), ids=REFUSED)
def test_refused(call, message):
    with pytest.raises((ValueError, RuntimeError), match=message):
        call()


def test_memory_that_was_let_go_is_refused():
    t = torch.ones(4)
    t.untyped_storage().resize_(0)
    with pytest.raises((ValueError, RuntimeError), match="has no memory"):
        ops.quantize(t, 8, 8, None, 0, 0, None)


def test_bits_above_a_code_count_nowhere():
    """Short codes in bytes that hold more, in long runs and short ones."""
    wild = torch.randint(0, 256, (4096,)).to(torch.uint8)
    for part in (wild, wild[:100]):
        assert torch.equal(ops.dequantize(part, ONE, 4, 2), ops.dequantize(part & 15, ONE, 4, 2))


def test_scales_by_slice_of_every_pass():
    """A scale of each image, or channel, is the same as one scale where they are equal."""
    per = {d: [2.0**-i for i in range(n)] for d, n in (("images", 2), ("outputs", 6))}
    images, outputs = torch.tensor(per["images"]).view(2, 1, 1, 1), torch.tensor(per["outputs"]).view(6, 1, 1, 1)
    y = conv(xs=images, ws=outputs)[0]
    assert torch.equal(y, conv()[0] * images * outputs.view(1, 6, 1, 1))
    inputs = torch.tensor([1.0, 0.25]).view(1, 2, 1, 1)
    dx = input_gradient(ws=inputs)[0]
    assert torch.equal(dx, input_gradient()[0] * inputs.repeat(1, 2, 1, 1))
