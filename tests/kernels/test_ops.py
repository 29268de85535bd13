"""Operators under torch's own checks: schemas, fake kernels, autograd registration, compilation with the same bits."""

import copy

import pytest
import torch
from helpers import moved
from torch import nn

import lns_sim
from lns_sim import Datapath, recipes

ops = torch.ops.lns_sim
DATAPATH = Datapath().encode()
CONV = ([1, 2], [1, 0], [1, 1], 2)
RECIPE = recipes.lns_madam().encode()


def codes(*shape):
    return torch.randint(0, 256, shape).to(torch.uint8)


ONE = torch.ones(())
RNG = torch.tensor([5, 1, 2, 0])
ENDS = torch.tensor([2, 2, 5], dtype=torch.int32)
CASES = {
    "quantize": (ops.quantize, (torch.randn(3, 4), 8, 8, None, 0, 0, None)),
    "quantize by slice": (ops.quantize, (torch.randn(3, 4), 12, 32, 1, 1, 2, RNG)),
    "dequantize": (ops.dequantize, (codes(3, 4), torch.ones(3, 1), 8, 8)),
    "rescale": (ops.rescale, (codes(3, 4), ONE, 2 * ONE, 8, 8, 0, None)),
    "forward_codes": (ops.forward_codes, (torch.randint(0, 30000, (3, 4)).to(torch.int16), ONE, 16, 2048, 8, 8)),
    "quantize_blocks": (ops.quantize_blocks, (torch.randn(3, 70, 2), 8, 8, 1, 32, 15, 1, 2, RNG)),
    "dequantize_blocks": (
        ops.dequantize_blocks,
        (codes(3, 70), ONE, torch.randint(0, 9, (3, 3)).to(torch.uint8), 1, 32, 8, 8),
    ),
    "forward_blocks": (
        ops.forward_blocks,
        (torch.randint(0, 30000, (3, 70)).to(torch.int16), ONE, 16, 2048, 4, 1, 1, 32, 15),
    ),
    "images_fastest": (ops.images_fastest, (codes(5, 3, 2, 4), 1, 2)),
    "uniform": (ops.uniform, (torch.randn(3, 4), RNG)),
    "round_to_powers": (ops.round_to_powers, (torch.randn(3, 4), ONE, 7, True, False, RNG)),
    "largest_magnitude": (ops.largest_magnitude, (torch.randn(3, 4),)),
    "scale_to_largest": (ops.scale_to_largest, (torch.randn(3, 4), 448.0)),
    "quantize_integers": (ops.quantize_integers, (torch.randn(3, 4), None, 127, 1, False, False, None)),
    "quantize_integers by channel": (ops.quantize_integers, (torch.randn(3, 4), 1, 63, 4, True, False, RNG)),
    "quantize_integers, values": (ops.quantize_integers, (torch.randn(3, 4), None, 127, 1, False, True, None)),
    "quantize_float8": (ops.quantize_float8, (torch.randn(3, 4), ONE, True)),
    "dequantize_float8": (ops.dequantize_float8, (codes(3, 4) & 191, ONE, False)),
    "matmul": (
        ops.matmul,
        (codes(2, 3, 4), torch.ones(2, 3, 1), codes(2, 4, 5), torch.ones(2, 1, 5), 8, 8, DATAPATH, False, False),
    ),
    "matmul, counted": (
        ops.matmul,
        (codes(3, 4), torch.ones(3, 1), codes(4, 5), torch.ones(1, 5), 8, 8, DATAPATH, True, True),
    ),
    "matmul, with blocks and formats": (
        ops.matmul,
        (
            *(codes(3, 40), torch.ones(3, 1), codes(40, 5), torch.ones(1, 5), 8, 8, DATAPATH, False, True, 8, 8),
            *(torch.randint(0, 9, (3, 2)).to(torch.uint8), None, 32),
        ),
    ),
    "linear, with blocks": (
        ops.linear,
        (
            torch.randn(2, 3, 40, requires_grad=True),
            torch.randn(5, 40, requires_grad=True),
            None,
            recipes.lns_madam_blocks().encode(),
        ),
    ),
    "conv2d": (ops.conv2d, (codes(2, 4, 6, 6), ONE, codes(6, 2, 3, 3), ONE, 8, 8, *CONV, DATAPATH, False, False)),
    "conv2d_input_gradient": (
        ops.conv2d_input_gradient,
        (codes(2, 6, 6, 2), ONE, codes(6, 2, 3, 3), ONE, 8, 8, [2, 4, 6, 6], *CONV, DATAPATH, False, True),
    ),
    "conv2d_weight_gradient": (
        ops.conv2d_weight_gradient,
        (codes(2, 6, 6, 2), ONE, codes(2, 4, 6, 6), ONE, 8, 8, [3, 3], *CONV, DATAPATH, False, False),
    ),
    "conv2d_weight_gradient, with blocks": (
        ops.conv2d_weight_gradient,
        (
            *(codes(32, 6, 6, 2), ONE, codes(32, 4, 6, 6), ONE, 8, 8, [1, 5], [1, 1], [0, 0], [1, 1], 2, DATAPATH),
            *(False, True, 0, 0, torch.zeros(1, 6, 6, 2, dtype=torch.uint8), None, 32),
        ),
    ),
    "madam_step": (
        ops.madam_step,
        (
            torch.randint(0, 30000, (3, 4)).to(torch.int16),
            torch.rand(3, 4),
            torch.randn(3, 4),
            ONE,
            ONE,
            torch.tensor([0.9, 0.1, 0.5, 10.0, 16.0]),
            16,
            2048,
            True,
            RNG,
        ),
    ),
    "linear": (
        ops.linear,
        (torch.randn(2, 3, 8, requires_grad=True), torch.randn(5, 8, requires_grad=True), None, RECIPE),
    ),
    "linear, stochastic": (
        ops.linear,
        (
            torch.randn(3, 8, requires_grad=True),
            torch.randn(5, 8, requires_grad=True),
            RNG,
            recipes.lns_madam(stochastic_gradients=True).encode(),
        ),
    ),
    "linear, fake-quant": (
        ops.linear,
        (
            torch.randn(3, 8, requires_grad=True),
            torch.randn(5, 8, requires_grad=True),
            None,
            recipes.lns_madam_fake_quant().encode(),
        ),
    ),
    "grouped_product": (
        ops.grouped_product,
        (torch.randn(6, 4, requires_grad=True), torch.randn(3, 4, 5, requires_grad=True), RNG, ENDS, False, RECIPE),
    ),
    "grouped_codes": (ops.grouped_codes, (torch.randn(6, 4), codes(3, 4, 5), ONE, RNG, ENDS, RECIPE)),
    "grouped_gradients": (
        ops.grouped_gradients,
        (torch.randn(6, 5), codes(6, 4), torch.ones(3), codes(3, 4, 5), torch.ones(3), RNG, ENDS, True, RECIPE),
    ),
    "product": (
        ops.product,
        (torch.randn(2, 3, 8, requires_grad=True), torch.randn(2, 8, 5, requires_grad=True), None, RECIPE),
    ),
    "attention": (
        ops.attention,
        (*(torch.randn(2, *n, 8, requires_grad=True) for n in ((3, 5), (6,), (6,))), None, 0.5, True, RECIPE),
    ),
    "attention_gradients": (
        ops.attention_gradients,
        (torch.randn(2, 3, 5, 8), codes(2, 3, 5, 8), ONE, *[codes(2, 6, 8), ONE] * 2, ONE, None, 0.5, True, RECIPE),
    ),
    "causal_probabilities": (ops.causal_probabilities, (torch.randn(2, 3, 5), 0.5, 2, 6, 1 * ONE, 8, 8, 0, [])),
    "quantized_values": (ops.quantized_values, (torch.randn(2, 3, 5), 8, 8, 0, 0, None)),
    "causal_probability_values": (
        ops.causal_probability_values,
        (torch.randn(2, 3, 5), 0.5, 2, 6, 1 * ONE, 8, 8, 0, []),
    ),
    "causal_errors": (
        ops.causal_errors,
        (
            *(torch.randn(2, 3, 5), torch.randn(2, 3, 5), 0.5, 2, ONE),
            *(codes(2, 3, 6), codes(2, 3, 6), torch.ones(2, 3), 8, 8, 0, [], 8, 8, 1, []),
        ),
    ),
    "causal_rescale": (ops.causal_rescale, (codes(2, 3, 6), torch.ones(2, 3), 2 * ONE, 8, 8, 0)),
    "causal_values": (ops.causal_values, (codes(2, 3, 6), torch.ones(2, 3), 2 * ONE, 8, 8, 0)),
    "unobserved": (ops.unobserved, (torch.randn(2, 3),)),
    "values": (ops.values, (torch.randn(2, 3, requires_grad=True),)),
    "outer_product": (
        ops.outer_product,
        (torch.randn(2, 3, 1, requires_grad=True), torch.randn(2, 1, 5, requires_grad=True), None, RECIPE),
    ),
    "product, fake-quant, b alone": (
        ops.product,
        (torch.randn(2, 3, 8), torch.randn(2, 8, 5, requires_grad=True), None, recipes.lns_madam_fake_quant().encode()),
    ),
    "convolution": (
        ops.convolution,
        (
            torch.randn(2, 4, 6, 6, requires_grad=True),
            torch.randn(6, 2, 3, 3, requires_grad=True),
            None,
            *CONV[:3],
            False,
            [0, 0],
            2,
            RECIPE,
        ),
    ),
    "convolution, transposed": (
        ops.convolution,
        (
            torch.randn(2, 6, 4, 5, requires_grad=True),
            torch.randn(6, 2, 3, 3, requires_grad=True),
            None,
            *CONV[:3],
            True,
            [0, 1],
            2,
            RECIPE,
        ),
    ),
    "convolution, 3-d": (
        ops.convolution,
        (
            torch.randn(1, 4, 5, 4, 4, requires_grad=True),
            torch.randn(4, 2, 3, 2, 3, requires_grad=True),
            None,
            [2, 1, 1],
            [1, 0, 1],
            [1, 1, 1],
            False,
            [0, 0, 0],
            2,
            RECIPE,
        ),
    ),
    "embedding": (
        ops.embedding,
        (torch.randn(7, 4, requires_grad=True), torch.tensor([[1, 3], [6, 1]]), None, -1, False, RECIPE),
    ),
}


def registered_operators():
    return {
        name.removeprefix("lns_sim::") for name in torch._C._dispatch_get_all_op_names() if name.startswith("lns_sim::")
    }


def test_every_operator_is_checked():
    assert registered_operators() == {op._qualified_op_name.removeprefix("lns_sim::") for op, _ in CASES.values()}


@pytest.mark.parametrize("op, args", CASES.values(), ids=CASES.keys())
def test_opcheck(op, args, device):
    # Leaves again after the move, or autograd would be checked on copies.
    args = tuple(
        a.detach().requires_grad_(a.requires_grad) if isinstance(a, torch.Tensor) else a for a in moved(args, device)
    )
    torch.library.opcheck(op.default, args)


def model(recipe):
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 25, 6),
        nn.Tanh(),
        nn.Linear(6, 3, bias=False),
    )
    return lns_sim.convert(layers, recipe)


@pytest.mark.parametrize(
    "recipe", [recipes.lns_madam(), recipes.lns_madam(stochastic_gradients=True)], ids=["nearest", "stochastic"]
)
@pytest.mark.slow
def test_compiled_training_has_the_bits_of_eager_training(recipe, device):
    torch._dynamo.reset()  # what other tests compiled counts against its limit
    eager = model(recipe).to(device)
    other = copy.deepcopy(eager)
    compiled = torch.compile(other, fullgraph=True, backend="aot_eager")
    inductor = copy.deepcopy(eager)
    fast = torch.compile(inductor, fullgraph=True)
    x = torch.randn(4, 2, 5, 5, device=device)
    runs = []
    for call, owner in ((eager, eager), (compiled, other), (fast, inductor)):
        optimizer = lns_sim.optim.LNSMadam(owner.parameters())
        for _ in range(2):
            optimizer.zero_grad()
            call(x).square().sum().backward()
            optimizer.step()
        runs.append(owner)
    for a, b in zip(runs[0].parameters(), runs[1].parameters()):
        if isinstance(a, lns_sim.LNSWeight):
            assert torch.equal(a.codes, b.codes)
    # Inductor may fuse the float parts (batch norm) differently; what runs on the datapath may not differ.
    last = [m[-1] for m in (eager, inductor)]
    h = torch.randn(5, 6, device=device)
    last[1].load_state_dict(last[0].state_dict())
    assert torch.equal(last[0](h), torch.compile(last[1], fullgraph=True)(h))


def test_functions_compile_with_the_same_bits(device):
    torch._dynamo.reset()  # what other tests compiled counts against its limit

    def f(x, w, path):
        q = lns_sim.quantize(x)
        image, kernel = lns_sim.quantize(x.view(1, 1, 8, 16)), lns_sim.quantize(w.view(8, 1, 4, 4), dim=0)
        return lns_sim.matmul(q, lns_sim.quantize(w), path), lns_sim.conv2d(image, kernel, padding=1), q.dequantize()

    path = Datapath(lut_entries=2)

    x, w = torch.randn(8, 16, device=device), torch.randn(16, 8, device=device)
    for a, b in zip(f(x, w, path), torch.compile(f, fullgraph=True)(x, w, path)):
        assert torch.equal(a, b)


def test_counting_refuses_a_compiled_model():
    torch._dynamo.reset()  # what other tests compiled counts against its limit
    compiled = torch.compile(model("lns-madam"), backend="aot_eager", fullgraph=True)
    with lns_sim.count(), pytest.raises(Exception, match="without torch.compile"):
        compiled(torch.randn(1, 2, 5, 5))
