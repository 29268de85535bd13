"""Bad input: each error names the argument, what was given and what is allowed."""

import warnings

import pytest
import torch
from torch import nn

import lns_sim
from lns_sim import Datapath, LNSFormat, LNSTensor, recipes
from lns_sim.golden import make_vectors

FMT = LNSFormat()


def codes(*shape, fmt=FMT, dim=None):
    return lns_sim.quantize(torch.randn(*shape), fmt, dim=dim)


CASES = {
    "gamma no power of two": (lambda: LNSFormat(8, 6), ValueError, "gamma must be a power of two from 1 to .* got 6"),
    "gamma too large": (lambda: LNSFormat(8, 256), ValueError, "gamma .* = 128, got 256"),
    "gamma zero": (lambda: LNSFormat(8, 0), ValueError, "gamma must be at least 1, got 0"),
    "bits too few": (lambda: LNSFormat(1), ValueError, "bits must be between 2 and 16, got 1"),
    "bits too many": (lambda: LNSFormat(17), ValueError, "bits .* got 17"),
    "bits no integer": (lambda: LNSFormat(8.0), TypeError, "bits must be an integer, got 8.0"),
    "format": (lambda: Datapath(8), TypeError, "format must be an LNSFormat"),
    "lut_entries": (
        lambda: Datapath(lut_entries=3),
        ValueError,
        "lut_entries must be a power of two from 1 to gamma = 8, got 3",
    ),
    "lut_entries above gamma": (lambda: Datapath(lut_entries=16), ValueError, "lut_entries .* got 16"),
    "lut_bits": (lambda: Datapath(lut_bits=1), ValueError, "lut_bits must be between 2 and 24, got 1"),
    "constants too wide": (
        lambda: Datapath(LNSFormat(16, 2048)),
        ValueError,
        "lut_bits = 8 cannot hold the 2048 constants",
    ),
    "acc_bits": (lambda: Datapath(acc_bits=33), ValueError, "acc_bits must be between 4 and 32, got 33"),
    "acc_lsb": (lambda: Datapath(acc_lsb=-40), ValueError, "acc_lsb = -40 is too low"),
    "vector_size": (lambda: Datapath(vector_size=0), ValueError, "vector_size .* got 0"),
    "rounding": (
        lambda: Datapath(rounding="floor"),
        ValueError,
        "rounding must be one of 'truncate', 'nearest', got 'floor'$",
    ),
    "overflow": (lambda: Datapath(overflow="saturating"), ValueError, "did you mean 'saturate'"),
    "x dtype": (
        lambda: lns_sim.quantize(torch.randn(3).double()),
        TypeError,
        "x must be a float32 tensor, got torch.float64",
    ),
    "x no tensor": (lambda: lns_sim.quantize([1.0]), TypeError, "x must be a float32 tensor, got list"),
    "dim": (lambda: lns_sim.quantize(torch.randn(3), dim=1), ValueError, "dim must be between -1 and 0, got 1"),
    "underflow": (lambda: lns_sim.quantize(torch.randn(3), underflow="zero"), ValueError, "underflow must be one of"),
    "seed": (lambda: lns_sim.quantize(torch.randn(3), rounding="stochastic", seed=-1), ValueError, "seed .* got -1"),
    "codes dtype": (lambda: LNSTensor(torch.zeros(2), torch.ones(()), FMT), TypeError, "codes .* must be torch.uint8"),
    "scale shape": (lambda: LNSTensor(codes(2, 3).codes, torch.ones(2), FMT), ValueError, "scale must be 0-d or"),
    "k": (lambda: codes(3).rescale(200), ValueError, "k must be between -126 and 127, got 200"),
    **{
        f"scale {scale}": (
            lambda scale=scale: lns_sim.matmul(LNSTensor(codes(2, 2).codes, torch.tensor(scale), FMT), codes(2, 2)),
            ValueError,
            "the scale of a must hold powers of two",
        )
        for scale in (-14.0, 3.0, 0.0, 2.0**-130, float("inf"))
    },
    "operand type": (lambda: lns_sim.matmul(torch.randn(2, 2), codes(2, 2)), TypeError, "a must be an LNSTensor"),
    "operand format": (
        lambda: lns_sim.matmul(codes(2, 2), codes(2, 2, fmt=LNSFormat(8, 4)), Datapath()),
        ValueError,
        "b has format .* does not fit the datapath's",
    ),
    "operand too wide": (
        lambda: lns_sim.matmul(codes(2, 2, fmt=LNSFormat(10, 8)), codes(2, 2), Datapath()),
        ValueError,
        "a has format .* at most e_max = 127",
    ),
    "datapath type": (
        lambda: lns_sim.matmul(codes(2, 2), codes(2, 2), datapath=8),
        TypeError,
        "datapath must be a Datapath",
    ),
    "K mismatch": (lambda: lns_sim.matmul(codes(2, 3), codes(4, 2)), ValueError, "K = 3 must be b's last but one"),
    "K empty": (lambda: lns_sim.matmul(codes(2, 0), codes(0, 2)), ValueError, "K is empty"),
    "one dimension": (lambda: lns_sim.matmul(codes(3), codes(3, 2)), ValueError, "a must have at least 2 dimensions"),
    "scale along K": (lambda: lns_sim.matmul(codes(2, 3, dim=1), codes(3, 2)), ValueError, "scale of a varies along K"),
    "scale of b along K": (
        lambda: lns_sim.matmul(codes(2, 3), codes(3, 2, dim=0)),
        ValueError,
        "scale of b varies along K",
    ),
    "batches": (lambda: lns_sim.matmul(codes(2, 2, 3), codes(3, 3, 2)), ValueError, "do not broadcast"),
    "conv rank": (lambda: lns_sim.conv2d(codes(2, 3, 4), codes(1, 3, 1, 1)), ValueError, "4 dimensions"),
    "conv channels": (
        lambda: lns_sim.conv2d(codes(1, 3, 4, 4), codes(2, 2, 1, 1)),
        ValueError,
        "groups = 1 does not fit 3 input channels",
    ),
    "conv kernel": (
        lambda: lns_sim.conv2d(codes(1, 1, 2, 2), codes(1, 1, 3, 3)),
        ValueError,
        "kernel .* larger than the padded input",
    ),
    "conv stride": (
        lambda: lns_sim.conv2d(codes(1, 1, 4, 4), codes(1, 1, 3, 3), stride=0),
        ValueError,
        "stride must be at least 1, got 0",
    ),
    "conv scale": (
        lambda: lns_sim.conv2d(codes(1, 2, 4, 4, dim=1), codes(1, 2, 3, 3)),
        ValueError,
        "scale of x varies along K",
    ),
    "recipe name": (lambda: recipes.get("lns-madman"), ValueError, "did you mean 'lns-madam'"),
    "recipe in convert": (
        lambda: lns_sim.convert(nn.Linear(2, 2), "fp16"),
        ValueError,
        "recipe must be one of .* got 'fp16'",
    ),
    "recipe type": (lambda: lns_sim.convert(nn.Linear(2, 2), 8), TypeError, "recipe must be a Recipe"),
    "recipe datapath": (
        lambda: recipes.lns_madam(gamma=4, datapath=Datapath()),
        ValueError,
        "the forward pass' activation has format",
    ),
    "update_bits": (
        lambda: recipes.lns_madam(update_bits=6),
        ValueError,
        "update_bits must be between 8 and 16, got 6",
    ),
    "weight with NaN": (lambda: nan_layer(), ValueError, "NaN or Inf"),
    "weight dtype": (lambda: lns_sim.convert(nn.Linear(2, 2).double(), "lns-madam"), TypeError, "must be float32"),
    "lr": (lambda: optimizer(lr=float("nan")), ValueError, "lr must be a finite number"),
    "lr infinite": (lambda: optimizer(lr=float("inf")), ValueError, "lr must be a finite number"),
    "lr negative": (lambda: optimizer(lr=-1.0), ValueError, "lr must be a finite number .* got -1.0"),
    "beta": (lambda: optimizer(beta=1.0), ValueError, "beta"),
    "float_optimizer": (lambda: optimizer(float_optimizer="adamx"), ValueError, "did you mean 'adam"),
    "no parameters": (lambda: lns_sim.optim.LNSMadam([]), ValueError, "params is empty"),
    "layer input": (
        lambda: lns_sim.convert(nn.Linear(2, 2), "lns-madam")(torch.randn(1, 3)),
        ValueError,
        "last dimension must be 2",
    ),
    "layer dtype": (
        lambda: lns_sim.convert(nn.Linear(2, 2), "lns-madam")(torch.randn(1, 2).half()),
        ValueError,
        "must be float32, got torch.float16",
    ),
    "a datapath for both operands": (
        lambda: lns_sim.matmul(codes(2, 2, fmt=LNSFormat(10, 16)), codes(2, 2), Datapath()),
        ValueError,
        "a datapath of bits=10, gamma=16 takes both",
    ),
    "no datapath for both operands": (
        lambda: LNSFormat(16, 1).check_holds("a", LNSFormat(8, 128)),
        ValueError,
        "no format of up to 16 bits holds",
    ),
    "vectors' datapath": (lambda: make_vectors("log"), TypeError, "datapath must be a Datapath or a LogDatapath"),
    "vectors' formats": (
        lambda: make_vectors(Datapath(), formats=(FMT,)),
        TypeError,
        "formats must be two LNSFormats, a's and b's, got",
    ),
    "a trace's datapath": (
        lambda: lns_sim.trace_dot([1], [2], 8),
        TypeError,
        "datapath must be a Datapath or a LogDatapath, got 8",
    ),
    "a class to convert": (
        lambda: lns_sim.convert(nn.Linear, "lns-madam"),
        TypeError,
        "model must be a torch.nn.Module, got <class",
    ),
    "a summary of no model": (lambda: lns_sim.summary(3), TypeError, "model must be a torch.nn.Module, got 3"),
    "a comparison without loss": (
        lambda: lns_sim.compare(nn.Linear(2, 2), 3),
        TypeError,
        "loss must be a function of the model, e.g. lambda m: .* got 3",
    ),
    "a simulation's recipe": (
        lambda: lns_sim.simulate(3),
        TypeError,
        "recipe must be a Recipe, the name of one or None, got 3",
    ),
    "recipe's datapath": (
        lambda: recipes.lns_madam(datapath="log"),
        TypeError,
        "forward must be a Datapath, a LogDatapath or None, got 'log'",
    ),
    "recipe's activation": (
        lambda: recipes.Recipe("mine", activation=FMT),
        TypeError,
        r"activation must be a quantizer \(lns_sim.quantizers\) or None, got LNSFormat",
    ),
    "recipe's weight": (
        lambda: recipes.Recipe("mine", weight=8),
        TypeError,
        "weight must be an LNSFormat, a quantizer",
    ),
    "recipe's update": (lambda: recipes.Recipe("mine", update=16), TypeError, "update must be an LNSFormat, got 16"),
    "rows of a path": (lambda: Datapath().path("a", 3), TypeError, "m must be an integer, got 'a'"),
    "columns of a path": (lambda: lns_sim.LogDatapath().path(3, 0), ValueError, "n must be at least 1, got 0"),
    "a model in float16": (
        lambda: lns_sim.convert(nn.Linear(2, 2), "lns-madam").half(),
        TypeError,
        "codes have no torch.float16 form; .* torch.autocast narrows",
    ),
    "a sparse input": (
        lambda: lns_sim.convert(nn.Linear(2, 2), "lns-madam")(torch.eye(2).to_sparse()),
        NotImplementedError,
        "the input of a simulated product is a sparse tensor; give x.to_dense",
    ),
    "a masked input": (
        lambda: lns_sim.convert(nn.Linear(2, 2), "lns-madam")(masked(torch.eye(2))),
        NotImplementedError,
        "the input of a simulated product is a MaskedTensor; give x.to_tensor",
    ),
    "a number as a pattern": (
        lambda: lns_sim.convert(nn.Linear(2, 2), "lns-madam", skip=3),
        TypeError,
        "skip must be a name pattern or a list of them, got 3",
    ),
    "a recipe's name": (lambda: recipes.get(3), TypeError, "a recipe's name must be a string, got 3"),
    **{
        f"{f.__name__} of a name": (
            lambda f=f: f("lns-madam"),
            TypeError,
            "recipe must be a Recipe or a ModelRecipe, got 'lns-madam'; lns_sim.recipes.get finds one",
        )
        for f in (recipes.describe, recipes.fake_quant, recipes.float32)
    },
    **{
        f"{name} of no module": (lambda f=f: f(nn.Linear), TypeError, "model must be a torch.nn.Module, got <class")
        for name, f in {
            "to_float": lns_sim.nn.to_float,
            "save": lambda model: lns_sim.weights.save(model, "none"),
            "load": lambda model: lns_sim.weights.load(model, "none"),
            "energy": lns_sim.energy,
            "cycles": lns_sim.cycles,
        }.items()
    },
    "a scripted model": (
        lambda: torch.jit.script(lns_sim.convert(nn.Sequential(nn.Linear(2, 2)), "lns-madam")),
        TypeError,
        "torch.jit.script cannot compile a converted Linear; use torch.compile",
    ),
    "a root's weight": (
        lambda: lns_sim.convert(nn.Linear(2, 2).double(), "lns-madam"),
        TypeError,
        "the weight of the model must be float32, got torch.float64",
    ),
    "isa": (
        lambda: lns_sim._extension.load().set_isa("avx1024"),
        ValueError,
        "asks for 'avx1024', but this machine runs scalar",
    ),
}


def masked(x):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is a prototype of torch's
        return torch.masked.masked_tensor(x, x > 0)


def nan_layer():
    layer = nn.Linear(2, 2)
    layer.weight.data[0, 0] = float("nan")
    return lns_sim.convert(layer, "lns-madam")


def optimizer(**kwargs):
    return lns_sim.optim.LNSMadam(lns_sim.convert(nn.Linear(2, 2), "lns-madam").parameters(), **kwargs)


@pytest.mark.parametrize("call, error, message", CASES.values(), ids=CASES.keys())
def test_error(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_scheduler_that_ruins_the_learning_rate_is_caught_before_weights_change():
    layer = lns_sim.convert(nn.Linear(2, 2), "lns-madam")
    opt = lns_sim.optim.LNSMadam(layer.parameters())
    layer(torch.randn(1, 2)).sum().backward()
    before = layer.weight.codes.clone()
    opt.param_groups[0]["lr"] = float("nan")
    with pytest.raises(ValueError, match="lr must be a finite number"):
        opt.step()
    assert torch.equal(layer.weight.codes, before)
