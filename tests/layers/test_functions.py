"""Every function of torch that multiplies: its names, its arguments, and what it refuses, as in torch."""

import inspect
import re

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.overrides import get_testing_overrides

import lns_sim
from lns_sim import recipes
from lns_sim.nn import functions
from lns_sim.nn import refused as others_refused

PLAIN = recipes.float32(recipes.lns_madam())  # the same products, nothing quantized


def whole(*shape):
    """Whole numbers, whose sums are exact in any order."""
    return torch.randint(-4, 5, shape).float()


# ---- Names.

MATRICES = (whole(4, 6), whole(6, 5))
BATCHES = (whole(3, 4, 6), whole(3, 6, 5))
# Arguments in the order of torch's signature; a test follows that no function is left out.
ARGUMENTS = {
    F.linear: (whole(4, 6), whole(5, 6), whole(5)),
    **dict.fromkeys((torch.matmul, torch.linalg.matmul, torch.mm), MATRICES),
    **dict.fromkeys((Tensor.matmul, Tensor.__matmul__, Tensor.mm), MATRICES),
    Tensor.__rmatmul__: MATRICES[::-1],
    **dict.fromkeys((torch.bmm, Tensor.bmm), BATCHES),
    **dict.fromkeys((torch.mv, Tensor.mv), (whole(4, 6), whole(6))),
    **dict.fromkeys((torch.addmm, Tensor.addmm), (whole(4, 5), *MATRICES)),
    **dict.fromkeys((torch.baddbmm, Tensor.baddbmm), (whole(3, 4, 5), *BATCHES)),
    **dict.fromkeys((torch.addmv, Tensor.addmv), (whole(4), whole(4, 6), whole(6))),
    torch.tensordot: (whole(2, 3, 4), whole(4, 3, 5), ([2, 1], [0, 1])),
    **dict.fromkeys((F.conv1d, torch.conv1d), (whole(2, 4, 7), whole(6, 2, 3), whole(6), 2, 1, 2, 2)),
    **dict.fromkeys((F.conv2d, torch.conv2d), (whole(2, 4, 7, 6), whole(6, 2, 3, 2), whole(6), 2, 1, 2, 2)),
    **dict.fromkeys((F.conv3d, torch.conv3d), (whole(2, 4, 7, 6, 5), whole(6, 2, 3, 2, 1), whole(6), 2, 1, 2, 2)),
    **dict.fromkeys(
        (F.conv_transpose1d, torch.conv_transpose1d), (whole(2, 4, 7), whole(4, 3, 3), whole(6), 2, 1, 1, 2, 2)
    ),
    **dict.fromkeys(
        (F.conv_transpose2d, torch.conv_transpose2d), (whole(2, 4, 5, 4), whole(4, 3, 3, 2), whole(6), 2, 1, 1, 2, 2)
    ),
    **dict.fromkeys(
        (F.conv_transpose3d, torch.conv_transpose3d),
        (whole(2, 4, 3, 4, 3), whole(4, 3, 3, 2, 1), whole(6), 2, 1, 1, 2, 2),
    ),
    F.scaled_dot_product_attention: (torch.randn(2, 3, 5, 4), torch.randn(2, 3, 6, 4), torch.randn(2, 3, 6, 4)),
}
VECTORS = tuple(whole(n).requires_grad_() for n in (4, 6))
# What sums nothing: only its gradients are simulated.
OUTER = {
    **dict.fromkeys((torch.outer, Tensor.outer, torch.ger, Tensor.ger), VECTORS),
    **dict.fromkeys((torch.addr, Tensor.addr), (whole(4, 6), *VECTORS)),
}
# Those with tests of their own: no operands by name, of LNSWeights only, of a module, in place.
ELSEWHERE = {torch.einsum, F.embedding, F.multi_head_attention_forward, Tensor.addr_}
ELSEWHERE |= {torch._grouped_mm, F.grouped_mm} if hasattr(F, "grouped_mm") else {torch._grouped_mm}
ELSEWHERE |= {getattr(torch, kind + end) for kind in ("lstm", "gru", "rnn_tanh", "rnn_relu") for end in ("", "_cell")}
OPERATORS = (torch._ops.OpOverload, torch._ops.OpOverloadPacket)  # of other libraries, known where they are loaded


def refused(function) -> bool:
    return getattr(functions._HANDLERS[function], "func", None) in (functions._refused, others_refused._refuse)


def test_no_function_is_left_out():
    known = {f for f in functions._HANDLERS if not refused(f) and not isinstance(f, OPERATORS)}
    assert set(ARGUMENTS) | set(OUTER) | ELSEWHERE == known


def names(function) -> list[str]:
    """Of the parameters, by torch itself; a method's first one has none."""
    return list(inspect.signature(get_testing_overrides()[function]).parameters)


@pytest.mark.parametrize("function", ARGUMENTS, ids=lambda f: f.__qualname__)
def test_torchs_names(function):
    """By position and by name."""
    args = ARGUMENTS[function]
    expected = function(*args)
    with lns_sim.simulate(PLAIN), lns_sim.ops.observer.observe(Log()) as log:
        torch.testing.assert_close(function(*args), expected)
        if function not in (Tensor.__matmul__, Tensor.__rmatmul__):  # operators, which have no names
            torch.testing.assert_close(by_name(function, args), expected)
    assert log.names and set(log.names) == {"forward"}


@pytest.mark.parametrize("function", OUTER, ids=lambda f: f.__qualname__)
def test_torchs_names_of_outer_products(function):
    args = OUTER[function]
    expected = [(y := function(*args)).detach(), *torch.autograd.grad(y.square().sum(), VECTORS)]
    for call in (lambda: function(*args), lambda: by_name(function, args)):
        with lns_sim.simulate(PLAIN), lns_sim.ops.observer.observe(Log()) as log:
            got = [(y := call()).detach(), *torch.autograd.grad(y.square().sum(), VECTORS)]
        torch.testing.assert_close(got, expected)
        assert set(log.names) == {"input_gradient", "weight_gradient"}


def by_name(function, args):
    given = dict(zip(names(function), args))
    owner = [given.pop(names(function)[0])] if "Tensor" in function.__qualname__ else []
    return function(*owner, **given)


class Log(lns_sim.ops.observer.Observer):
    def __init__(self):
        self.names = []

    def product(self, product):
        self.names.append(product.name)


def test_an_embeddings_names():
    layer = lns_sim.convert(nn.Embedding(6, 4), "lns-madam")
    at = torch.tensor([0, 5])
    got = F.embedding(input=at, weight=layer.weight, padding_idx=None, scale_grad_by_freq=True)
    assert torch.equal(got, layer(at))


def test_names_with_a_weight():
    w, x, b = lns_sim.convert(nn.Linear(6, 5), "lns-madam").weight, torch.randn(4, 6), torch.randn(5)
    expected = x @ w.t()
    for got in (
        torch.mm(input=x, mat2=w.t()),
        torch.matmul(x, other=w.t()),
        torch.addmm(input=b, mat1=x, mat2=w.t()) - b,
        F.linear(input=x, weight=w),
        torch.einsum("ij,kj->ik", [x, w]),
        torch.tensordot(a=x, b=w, dims=([1], [1])),
    ):
        torch.testing.assert_close(got, expected)


# ---- Arguments.


def test_a_factor_of_zero_ignores_its_operand():
    a, b = (x.clone().requires_grad_() for x in MATRICES)
    nan, inf = torch.full((4, 5), torch.nan), torch.full((5,), torch.inf)
    w = lns_sim.convert(nn.Linear(6, 5), "lns-madam").weight.t()
    with lns_sim.simulate("lns-madam"):
        for beside in (nan, inf):
            assert torch.equal(torch.addmm(beside, a, b, beta=0), a @ b)
            assert torch.equal(torch.addmm(beside, a, w, beta=0), a @ w)
            assert torch.equal(beside.addmm(a, b, beta=0, alpha=2), 2 * (a @ b))
        assert torch.equal(torch.addmm(b[0, :5], a * torch.nan, b, alpha=0), b[0, :5].expand(4, 5))
        assert torch.equal(torch.addmm(nan, a * torch.nan, w, beta=0, alpha=0), torch.zeros(4, 5))
        assert torch.equal(torch.addmv(nan[:, 0], a, b[:, 0], beta=0), a @ b[:, 0])
        assert torch.equal(torch.baddbmm(nan[None], a[None], b[None], beta=0), (a @ b)[None])
        beside = nan.clone().requires_grad_()
        torch.addmm(beside, a, b, beta=0).sum().backward()
    assert torch.equal(beside.grad, torch.zeros(4, 5)) and a.grad.isfinite().all()


def outcome(call):
    try:
        return call()
    except Exception as error:
        return error


@pytest.mark.parametrize(
    "call",
    {
        "mm of batches": lambda a, b: torch.mm(a[None], b),
        "mm of vectors": lambda a, b: torch.mm(a, b[:, 0]),
        "mv of matrices": lambda a, b: torch.mv(a, b),
        "bmm of matrices": lambda a, b: torch.bmm(a, b),
        "bmm that would broadcast": lambda a, b: torch.bmm(a.expand(3, 4, 6), b[None]),
        "addmm that would grow": lambda a, b: torch.addmm(torch.ones(3, 4, 5), a, b),
        "addmm of batches": lambda a, b: torch.addmm(torch.ones(1), a[None], b),
        "addmm of integers": lambda a, b: torch.addmm(torch.ones(4, 5, dtype=torch.int64), a, b),
        "a number": lambda a, b: a @ a[0, 0],
        "no tensor": lambda a, b: a @ 3,
        "inner sizes": lambda a, b: a @ a,
        "batches": lambda a, b: a.expand(3, 4, 6) @ b.expand(2, 6, 5),
        "tensordot's sizes": lambda a, b: torch.tensordot(a, b, 2),
        "tensordot's dimensions": lambda a, b: torch.tensordot(a, b, ([5], [0])),
        "tensordot twice": lambda a, b: torch.tensordot(a, b, ([1, 1], [0, 0])),
        "tensordot of many": lambda a, b: torch.tensordot(a, b, 3),
        "linear's bias": lambda a, b: F.linear(a, b.t(), torch.ones(4)),
        "conv's bias": lambda a, b: F.conv1d(a, torch.ones(2, 4, 1), torch.ones(1)),
        "same padding with a stride": lambda a, b: F.conv1d(a, torch.ones(2, 4, 3), stride=2, padding="same"),
        "another padding": lambda a, b: F.conv1d(a, torch.ones(2, 4, 3), padding="full"),
    }.items(),
    ids=lambda call: call[0],
)
def test_what_torch_refuses(call):
    a, b = MATRICES
    assert isinstance(outcome(lambda: call[1](a, b)), Exception)
    with lns_sim.simulate(PLAIN):
        assert isinstance(outcome(lambda: call[1](a, b)), Exception)


def test_results_have_no_place_of_their_own():
    a, b = MATRICES
    w = lns_sim.convert(nn.Linear(6, 5), "lns-madam").weight.t()
    place = torch.empty(4, 5)
    with lns_sim.simulate(PLAIN):
        for call in (
            lambda: torch.mm(a, b, out=place),
            lambda: torch.matmul(a, w, out=place),
            lambda: torch.addmm(place, a, b, out=place),
            lambda: torch.tensordot(a, b, 1, out=place),
        ):
            with pytest.raises(ValueError, match="takes no out"):
                call()
        for call in (lambda: place.addmm_(a, b), lambda: place.addmm_(mat1=a, mat2=w)):
            with pytest.raises(NotImplementedError, match="addmm_"):
                call()
    with pytest.raises(NotImplementedError, match="addmm_"):
        place.addmm_(mat1=a, mat2=w)


def test_errors_of_the_operator_reach_the_user():
    """Python's @ takes a TypeError for "not my operand", and says something else."""
    w, x = lns_sim.convert(nn.Linear(4, 4), "lns-madam").weight, torch.ones(2, 4)
    for call, message in (
        (lambda: x.double() @ w, "float32, got torch.float64"),
        (lambda: w @ x.t().bfloat16(), "float32, got torch.bfloat16"),
        (lambda: x[0, 0] @ w, "last dimension"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match="unsupported operand"):
        w @ 3


def test_an_embeddings_indices():
    plain = nn.Embedding(6, 4)
    for recipe in ("lns-madam", "fp8", "int8"):
        model = lns_sim.convert(nn.Sequential(nn.Embedding(6, 4)), recipe)[0]
        for at in (torch.tensor([-1, 1]), torch.tensor([6])):
            with pytest.raises(IndexError):
                plain(at)
            with pytest.raises(IndexError):
                F.embedding(at, model.weight)
    w = lns_sim.convert(nn.Embedding(6, 4), "lns-madam").weight
    assert torch.equal(F.embedding(torch.tensor([1], dtype=torch.int32), w), F.embedding(torch.tensor([1]), w))
    for at in (torch.tensor([True] * 6), torch.tensor([1.0])):
        with pytest.raises(RuntimeError, match="scalar types: Long, Int"):
            F.embedding(at, w)
    with pytest.raises(ValueError, match="within the 6 embeddings, got 6"):
        F.embedding(torch.tensor([1]), w, padding_idx=6)


# ---- einsum.


@st.composite
def equations(draw):
    """Operands of a few letters, some of their sizes 1, some under dots, some letters twice."""
    sizes = dict(zip("abcd", draw(st.lists(st.integers(1, 3), min_size=4, max_size=4))))
    many, shapes, inputs = draw(st.integers(1, 3)), [], []
    dots = draw(st.lists(st.integers(1, 3), max_size=2))
    for _ in range(many):
        letters = draw(st.text("abcd", max_size=3))
        shape = [1 if draw(st.integers(0, 3)) == 0 else sizes[c] for c in letters]
        if draw(st.booleans()):
            at, under = draw(st.integers(0, len(letters))), dots[draw(st.integers(0, len(dots))) :]
            shape[at:at] = [1 if draw(st.integers(0, 3)) == 0 else n for n in under]
            letters = letters[:at] + "..." + letters[at:]
        inputs.append(letters)
        shapes.append(shape)
    output = draw(st.none() | st.permutations(sorted(set("".join(inputs)) - {"."})))
    if output is None:
        return ",".join(inputs), shapes
    output = "".join(output[: draw(st.integers(0, len(output)))])
    if draw(st.booleans()):
        output = "..." + output
    if draw(st.integers(0, 9)) == 0:  # an error
        output += draw(st.sampled_from(["z", "a", "..."]))
    return f"{','.join(inputs)}->{output}", shapes


@given(equations())
def test_einsum_is_torchs(case):
    equation, shapes = case
    operands = [whole(*shape) for shape in shapes]
    expected = outcome(lambda: torch.einsum(equation, *operands))
    with lns_sim.simulate(PLAIN):
        got = outcome(lambda: torch.einsum(equation, *operands))
    if isinstance(expected, Exception):
        assert type(got) is type(expected)
    else:
        assert got.shape == expected.shape and torch.equal(got, expected)


@given(st.data())
def test_tensordot_is_torchs(data):
    a, b = (data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=3)) for _ in range(2))
    numbers = st.integers(-4, 3)
    dims = data.draw(st.integers(0, 4) | st.tuples(st.lists(numbers, max_size=2), st.lists(numbers, max_size=2)))
    operands = whole(*a), whole(*b)
    expected = outcome(lambda: torch.tensordot(*operands, dims))
    with lns_sim.simulate(PLAIN):
        got = outcome(lambda: torch.tensordot(*operands, dims))
    if isinstance(expected, Exception):
        assert isinstance(got, Exception)
    else:
        assert got.shape == expected.shape and torch.equal(got, expected)


def test_einsums_other_forms():
    a, b = MATRICES
    w = lns_sim.convert(nn.Linear(6, 1), "lns-madam").weight
    with lns_sim.simulate(PLAIN):
        assert torch.equal(torch.einsum(a, [0, 1], b, [1, 2], [0, 2]), a @ b)
        assert torch.equal(torch.einsum(a, [0, 1], b, [1, 2]), a @ b)
        assert torch.equal(torch.einsum(a, [..., 1], b, [1, 30], [..., 30]), a @ b)
        assert torch.equal(torch.einsum(" ij, jk -> ik ", a, b), a @ b)
        n = torch.arange(6).reshape(2, 3)
        assert torch.equal(torch.einsum("ij,kj", n, n), n @ n.t())
    expected = F.linear(a, w)
    assert torch.equal(torch.einsum("ij,kj->ik", a, w), expected)
    assert torch.equal(torch.einsum("kij,kj->i", a.expand(2, 4, 6), w), 2 * expected[:, 0])  # a weight's row for all


@given(st.lists(st.integers(1, 3), min_size=3, max_size=3))
def test_einsum_has_torchs_gradients(sizes):
    i, j, k = sizes
    a, b = whole(i, j), whole(1, k)
    assume(j > 1)
    results = []
    for recipe in (None, PLAIN):
        leaves = [x.clone().requires_grad_() for x in (a, b)]
        with lns_sim.simulate(recipe):
            torch.einsum("ij,jk->ki", *leaves).square().sum().backward()
        results.append([x.grad for x in leaves])
    assert all(torch.equal(*pair) for pair in zip(*results))


# ---- Attention.


def attend(**options):
    q, k, v = torch.randn(2, 4, 5, 8), torch.randn(2, 4, 6, 8), torch.randn(2, 4, 6, 8)
    given = {"query": q, "key": k, "value": v, **options}
    return lambda: F.scaled_dot_product_attention(**given)


@pytest.mark.parametrize(
    "options",
    [
        dict(is_causal=True, attn_mask=torch.ones(5, 6, dtype=torch.bool)),
        dict(dropout_p=1.5),
        dict(dropout_p=-0.1),
        dict(attn_mask=torch.ones(5, 7)),
        dict(attn_mask=torch.ones(3, 2, 4, 5, 6)),
        dict(attn_mask=torch.ones(5, 6, dtype=torch.int64)),
        dict(attn_mask=torch.ones(5, 6, dtype=torch.float64)),
        dict(key=torch.randn(2, 4, 6, 7)),
        dict(value=torch.randn(2, 4, 5, 8)),
        dict(key=torch.randn(2, 3, 6, 8)),
        dict(key=torch.randn(2, 3, 6, 8), value=torch.randn(2, 3, 6, 8), enable_gqa=True),
        dict(query=torch.randn(8)),
        dict(query=torch.randn(2, 4, 5, 8).double()),
    ],
)
def test_attention_refuses_what_torch_refuses(options):
    if "is_causal" not in options and set(options) != {"value"}:  # which torch's own kernels do not look at
        assert isinstance(outcome(attend(**options)), Exception)
    with lns_sim.simulate(PLAIN):
        assert isinstance(outcome(attend(**options)), (ValueError, RuntimeError))


@pytest.mark.parametrize(
    "options",
    [
        {},
        dict(is_causal=True),
        dict(is_causal=True, key=torch.randn(2, 4, 3, 8), value=torch.randn(2, 4, 3, 8)),
        dict(attn_mask=torch.rand(1, 6) > 0.5),
        dict(attn_mask=torch.randn(2, 1, 1, 6)),
        dict(attn_mask=torch.zeros(5, 6, dtype=torch.bool)),
        dict(scale=2.0),
        dict(key=torch.randn(2, 2, 6, 8), value=torch.randn(2, 2, 6, 8), enable_gqa=True),
        dict(key=torch.randn(2, 2, 6, 8), value=torch.randn(2, 1, 6, 8), enable_gqa=True),
        dict(key=torch.randn(1, 1, 6, 8), value=torch.randn(2, 4, 6, 3)),
        dict(query=torch.randn(5, 8), key=torch.randn(6, 8), value=torch.randn(6, 8)),
        dict(query=torch.randn(0, 4, 5, 8), key=torch.randn(0, 4, 6, 8), value=torch.randn(0, 4, 6, 8)),
    ],
)
def test_attention_acts_as_torchs(options):
    call = attend(**options)
    with lns_sim.simulate(PLAIN):
        got = call()
    torch.testing.assert_close(got, call())


def multi_head(**options):
    torch.manual_seed(0)
    shape = options.pop("shape", (2, 5, 8))
    extra = {name: options.pop(name) for name in ("add_zero_attn", "add_bias_kv") if name in options}
    model = nn.MultiheadAttention(8, 2, batch_first=True, **extra)
    x = torch.randn(shape)
    return model, {"query": x, "key": x, "value": x, **options}


CAUSAL = nn.Transformer.generate_square_subsequent_mask(5)


@pytest.mark.parametrize(
    "options",
    [
        dict(is_causal=True),
        dict(key_padding_mask=torch.zeros(2, 5, dtype=torch.int64)),
        dict(attn_mask=torch.zeros(5, 5, dtype=torch.int64)),
        dict(key_padding_mask=torch.zeros(2, 6, dtype=torch.bool)),
        dict(key_padding_mask=torch.zeros(5, dtype=torch.bool)),
        dict(attn_mask=torch.zeros(1, 5)),
        dict(attn_mask=torch.zeros(2, 5, 5)),
        dict(attn_mask=torch.zeros(2, 2, 5, 5)),
        dict(key=torch.randn(2, 4, 8)),
        dict(key=torch.randn(5, 8)),
        dict(shape=(8,)),
        dict(shape=(2, 5, 6)),
    ],
)
def test_multi_head_attention_refuses_what_torch_refuses(options):
    model, given = multi_head(**options)
    model.train()
    assert isinstance(outcome(lambda: model(**given)), Exception)
    lns_sim.convert(model, PLAIN)
    error = outcome(lambda: model(**given))
    assert isinstance(error, (ValueError, RuntimeError, AssertionError)), error
    assert re.search(r"\w+ .* \w+", str(error))


@pytest.mark.parametrize(
    "options",
    [
        dict(attn_mask=CAUSAL, is_causal=True),
        dict(attn_mask=CAUSAL, is_causal=True, need_weights=False),
        dict(attn_mask=torch.zeros(4, 5, 5)),
        dict(key_padding_mask=torch.arange(5).expand(2, 5) > 3),
        dict(key_padding_mask=torch.zeros(2, 5), attn_mask=CAUSAL < 0),
        dict(average_attn_weights=False),
        dict(shape=(5, 8), attn_mask=torch.zeros(2, 5, 5)),
        dict(shape=(5, 8), key_padding_mask=torch.arange(5) > 3),
        dict(shape=(0, 5, 8)),
        dict(shape=(0, 5, 8), attn_mask=torch.zeros(0, 5, 5)),
        dict(add_zero_attn=True, add_bias_kv=True, attn_mask=CAUSAL),
        dict(shape=(0, 5, 8), key_padding_mask=torch.zeros(0, 5, dtype=torch.bool)),
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_multi_head_attention_acts_as_torchs(options, training):
    model, given = multi_head(**options)
    model.train(training)
    expected = model(**given)
    got = lns_sim.convert(model, PLAIN)(**given)
    for a, b in zip(got, expected):
        assert a is b is None or (torch.allclose(a, b, atol=1e-5) and a.shape == b.shape)
