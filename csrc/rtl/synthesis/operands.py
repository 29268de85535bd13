"""What the designs are fed with: tensors of networks in training, in each design's own codes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import lns_sim
from csrc.rtl.design import E3M0, E4M3, E5M10, ENTRIES, Number
from csrc.rtl.synthesis.netlist import Netlist
from csrc.rtl.synthesis.table import Row
from lns_sim import LNSFormat, recipes
from lns_sim.ops.observer import Observer, observe
from lns_sim.quantizers.operand import Operand
from lns_sim.recipes import PASSES
from lns_sim.studies import models
from lns_sim.studies.energy import technology
from lns_sim.studies.training import data

HELD = ENTRIES  # clocks that the stationary operand stays
TRANSFORMER = tuple(technology.TRANSFORMER + name for name in PASSES)
SOURCES = ("random", *PASSES, *TRANSFORMER, "idle")  # the passes by themselves: of a convolution
STEPS = 20  # of training before the tensors are taken

Pair = tuple[Tensor, Tensor]  # both operands' values as rows along K: the moving one, the one that is held


class _Products(Observer):
    """Operands of every product, by layer and pass."""

    def __init__(self):
        self.found: dict[int, dict[str, tuple[Operand, Operand]]] = {}

    def product(self, product) -> None:
        self.found.setdefault(product.site, {})[product.name] = product.operands


def _last_step(optimizer, loss: Callable[[int], Tensor]) -> list[dict[str, tuple[Operand, Operand]]]:
    """The last step's products, layer by layer."""
    for step in range(STEPS):
        optimizer.zero_grad()
        with observe(_Products()) as seen:
            loss(step).backward()
        optimizer.step()
    return [seen.found[site] for site in sorted(seen.found)]


@cache
def convolution() -> dict[str, list[Pair]]:
    """By pass the operands of a convolution (3 x 3, padding 1) of a CNN on digits, after some steps of training."""
    digits = data.load("digits")
    torch.manual_seed(0)
    model = lns_sim.convert(models.build("cnn", digits.input_shape, digits.classes), recipes.lns_madam())

    def loss(step: int) -> Tensor:
        at = 64 * step % (len(digits.x_train) - 64)
        return F.cross_entropy(model(digits.x_train[at : at + 64]), digits.y_train[at : at + 64])

    layer = _last_step(lns_sim.optim.LNSMadam(model.parameters(), lr=1 / 16), loss)[1]

    def patches(x: Tensor) -> Tensor:  # (N * H * W, kh * kw * C): the channel is fastest
        n, c = x.shape[:2]
        return F.unfold(x, 3, padding=1).view(n, c, 9, -1).permute(0, 3, 2, 1).reshape(-1, 9 * c)

    rows = {
        "forward": lambda x, w: (patches(x), w.permute(0, 2, 3, 1).flatten(1)),
        "input_gradient": lambda dy, w: (patches(dy), w.flip(2, 3).permute(1, 2, 3, 0).flatten(1)),
        "weight_gradient": lambda dy, x: (dy.transpose(0, 1).flatten(1), patches(x).mT),
    }
    return {name: [rows[name](*(o.value.detach() for o in layer[name]))] for name in PASSES}


@cache
def transformer() -> dict[str, list[Pair]]:
    """By pass of a small decoder (4 heads, width 128, context 128) on text, after some steps: a linear layer of the
    feed-forward part, and both products of attention.
    """
    text = data.load("text")
    torch.manual_seed(0)
    model = lns_sim.convert(models.GPT(text.classes, 128, layers=1), recipes.lns_madam())

    def loss(step: int) -> Tensor:
        at = slice(8 * step, 8 * step + 8)
        return F.cross_entropy(model(text.x_train[at]).flatten(0, 1), text.y_train[at].flatten())

    layers = _last_step(lns_sim.optim.LNSMadam(model.parameters(), lr=1 / 64), loss)
    _, scores, mixed, _, up, *_ = layers  # after the layer that makes queries, keys and values

    def rows(a: Operand, b: Operand) -> Pair:
        return a.value.detach().flatten(0, -2), b.value.detach().mT.flatten(0, -2)

    return {name: [rows(*layer[name]) for layer in (up, up, scores, mixed)] for name in PASSES}


def trained() -> None:
    """Trains both networks, once: their products are told from others' only while nothing else runs."""
    convolution()
    transformer()


def codes(x: Tensor, format: LNSFormat | Number) -> np.ndarray:
    """Values in a format, the largest magnitude at (LNS: within an octave below) the format's largest: unsigned
    integers of x's shape."""
    if isinstance(format, LNSFormat):
        return lns_sim.quantize(x, format).codes.numpy()
    if format.exponent == 0:
        largest = (1 << (format.mantissa - 1)) - 1
        return (x * (largest / x.abs().max())).round().to(torch.int8).numpy().view(np.uint8) & ((1 << format.bits) - 1)
    if format == E3M0:  # 0, 1, 2, 4 ... 64
        scaled = x * (64 / x.abs().max())
        exponent = scaled.abs().log2().round().clamp(-1, 6)
        return ((exponent + 1) + 8 * (x < 0)).to(torch.uint8).numpy()
    largest, dtype, bits = {E4M3: (448, torch.float8_e4m3fn, torch.uint8), E5M10: (65504, torch.float16, torch.uint16)}[
        format
    ]
    return (x * (largest / x.abs().max())).to(dtype).view(bits).numpy()


def _random(format: LNSFormat | Number, rng: np.random.Generator) -> np.ndarray:
    """Rows of codes, all equally likely but for NaN and infinities."""
    found = rng.integers(0, 1 << format.bits, (4096, 1024))
    if format == E4M3:
        found = np.where(found & 127 == 127, 0, found)
    if format == E5M10:
        found = np.where(found >> 10 & 31 == 31, 0, found)
    return found.astype(np.uint16)


@cache
def streams(format: LNSFormat | Number, held: LNSFormat | Number, source: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Codes of the moving and the held operand of one of ``SOURCES``, as rows along K."""
    if source == "random":
        rng = np.random.default_rng(0)
        return [(_random(format, rng), _random(held, rng))]
    if source == "idle":
        return [(np.zeros((1, 1024), np.uint8), np.zeros((1, 1024), np.uint8))]
    pairs = transformer() if source in TRANSFORMER else convolution()
    return [(codes(a, format), codes(b, held)) for a, b in pairs[source.removeprefix(technology.TRANSFORMER)]]


def inputs(row: Row, sources: tuple[str, ...], count: int, vectors: int, netlist: Netlist) -> dict[str, np.ndarray]:
    """:func:`stimulus` of a design's netlist, source by source of ``SOURCES`` side by side, ``count`` streams each; a
    design without handshake has fewer ports. ``vectors`` are those of a collector of 16 entries; others get as many
    clocks to count."""
    bits = (row.moving.bits, row.held.bits)
    vectors = -(-(row.warm_up + HELD * (vectors - 1)) // row.entries)
    parts = [
        stimulus(streams(row.moving, row.held, source), bits, count, vectors, held=row.entries) for source in sources
    ]
    found = {name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0] if name in netlist.ports}
    if row.skewed:
        found |= {name: skewed(found[name]) for name in ("in_a", "in_b")}
    return found


def skewed(bits: np.ndarray, lanes: int = 32) -> np.ndarray:
    """Each lane's bits a clock later than those of the lane before."""
    apart = np.split(bits, lanes, axis=2)
    return np.concatenate([np.roll(lane, i, axis=0) for i, lane in enumerate(apart)], axis=2)


def stimulus(
    pairs: list[tuple[np.ndarray, np.ndarray]],
    bits: tuple[int, int],
    count: int,
    vectors: int,
    lanes: int = 32,
    held: int = HELD,
) -> dict[str, np.ndarray]:
    """Ports' bits of streams of dot products: a stationary row against ``held`` moving ones, vector by vector of K.

    Args:
        pairs: codes of the moving and the held operand, each of which gets its share of the streams.
        bits: of their codes.
        count: streams.
        vectors: that follow each other in a stream, for each of the entries; K that holds fewer begins again.
        lanes: of the design.
        held: clocks that the stationary row's vector stays, one for each entry of the collector.

    Returns:
        bool of shape (clocks, streams, bits of the port); the moving operand is at port ``in_a``.
    """
    rng = np.random.default_rng(1)
    parts = [_one(rng, *pair, bits, count // len(pairs), vectors, lanes, held) for pair in pairs]
    found = {name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0]}
    found["in_valid"] = found["out_ready"] = np.ones_like(found["in_first"])
    return found


def _one(rng, moving, stationary, bits, count: int, vectors: int, lanes: int, held: int) -> dict[str, np.ndarray]:
    along = min(vectors, stationary.shape[1] // lanes)  # vectors of a dot product
    at = np.arange((held - 1).bit_length())
    ports: dict[str, list[np.ndarray]] = {name: [] for name in ("in_a", "in_b", "in_entry", "in_first", "in_last")}
    for v in range(vectors):
        if v % along == 0:
            a, b = rng.integers(len(moving), size=(count, held)), rng.integers(len(stationary), size=count)
            start = lanes * rng.integers(stationary.shape[1] // lanes - along + 1, size=count)
        k = start[:, None] + lanes * (v % along) + np.arange(lanes)
        right = _bits(stationary[b[:, None], k], bits[1])
        for entry in range(held):
            ports["in_a"].append(_bits(moving[a[:, entry, None], k], bits[0]))
            ports["in_b"].append(right)
            ports["in_entry"].append(np.broadcast_to((entry >> at & 1).astype(bool), (count, len(at))))
            ports["in_first"].append(np.full((count, 1), v % along == 0))
            ports["in_last"].append(np.full((count, 1), v % along == along - 1))
    return {name: np.stack(x) for name, x in ports.items()}


def _bits(x: np.ndarray, bits: int) -> np.ndarray:
    return (x[..., None].astype(np.uint16) >> np.arange(bits, dtype=np.uint16) & 1).astype(bool).reshape(len(x), -1)
