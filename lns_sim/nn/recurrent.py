"""Recurrent layers, step by step: every gate's products are its cell's, as in a loop over nn.LSTMCell and its kin.

Layers of torch.nn call one function for all steps, on inputs (steps, samples, features) or on a packed sequence, whose
samples end at different steps.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lns_sim.nn import functions

State = tuple[Tensor, ...]  # (samples, size) each: h, and of an LSTM c
Step = Callable[[Tensor, State, list[Tensor]], State]


def _gates(x: Tensor, h: Tensor, weights: list[Tensor]) -> tuple[Tensor, Tensor]:
    """What the input and the state before give: weights are of both, then biases, if there are any."""
    biases = weights[2:4] if len(weights) >= 4 else (None, None)
    return F.linear(x, weights[0], biases[0]), F.linear(h, weights[1], biases[1])


def _lstm(x: Tensor, state: State, weights: list[Tensor]) -> State:
    h, c = state
    of_input, of_state = _gates(x, h, weights)
    i, f, g, o = (of_input + of_state).chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    h = o.sigmoid() * c.tanh()
    return (F.linear(h, weights[-1]) if len(weights) % 2 else h), c  # an odd one projects


def _gru(x: Tensor, state: State, weights: list[Tensor]) -> State:
    (h,) = state
    of_input, of_state = _gates(x, h, weights)
    (ri, zi, ni), (rh, zh, nh) = of_input.chunk(3, -1), of_state.chunk(3, -1)
    n = (ni + (ri + rh).sigmoid() * nh).tanh()
    return (n + (zi + zh).sigmoid() * (h - n),)


def _simple(activation: Callable[[Tensor], Tensor]) -> Step:
    return lambda x, state, weights: (activation(sum(_gates(x, state[0], weights))),)


_STEPS: dict[str, Step] = {"lstm": _lstm, "gru": _gru, "rnn_tanh": _simple(torch.tanh), "rnn_relu": _simple(torch.relu)}


def _forwards(step: Step, xs: list[Tensor], state: State, weights) -> tuple[list[Tensor], State]:
    """Samples that end are the last ones."""
    outputs, ended = [], []
    for x in xs:
        if len(x) < len(state[0]):
            ended.append(tuple(s[len(x) :] for s in state))
            state = tuple(s[: len(x)] for s in state)
        state = step(x, state, weights)
        outputs.append(state[0])
    return outputs, tuple(torch.cat(parts) for parts in zip(state, *reversed(ended)))


def _backwards(step: Step, xs: list[Tensor], first: State, weights) -> tuple[list[Tensor], State]:
    """From the last step to the first; samples join as they begin."""
    outputs, state = [], tuple(s[: len(xs[-1])] for s in first)
    for x in reversed(xs):
        if len(x) > len(state[0]):
            state = tuple(torch.cat([s, f[len(s) : len(x)]]) for s, f in zip(state, first))
        state = step(x, state, weights)
        outputs.append(state[0])
    return outputs[::-1], state


def _layers(step, xs, states, weights, layers, dropout, training, bidirectional) -> tuple[list[Tensor], State]:
    """All layers; ``states`` are (layers * directions, samples, size) each."""
    ways = (_forwards, _backwards) if bidirectional else (_forwards,)
    per = len(weights) // (layers * len(ways))
    finals = []
    for layer in range(layers):
        outputs = []
        for way, run in enumerate(ways):
            at = layer * len(ways) + way
            ys, final = run(step, xs, tuple(s[at] for s in states), weights[at * per : (at + 1) * per])
            outputs.append(ys)
            finals.append(final)
        xs = [torch.cat(ys, -1) for ys in zip(*outputs)]
        if layer + 1 < layers:
            xs = [F.dropout(x, dropout, training) for x in xs]
    return xs, tuple(torch.stack(parts) for parts in zip(*finals))


def _handler(name: str):
    several = name == "lstm"  # tensors of state

    def layer(simulation, input, *args):
        if simulation is None or simulation.recipe is None:
            return NotImplemented
        packed = isinstance(args[2], (list, tuple))  # sizes of the steps come before the state
        hx, weights, _, layers, dropout, training, bidirectional, *batch_first = args[packed:]
        steps = 0 if packed or not batch_first[0] else 1
        xs = list(input.split(args[0].tolist()) if packed else input.unbind(steps))
        with simulation:
            ys, finals = _layers(
                _STEPS[name],
                xs,
                tuple(hx) if several else (hx,),
                list(weights),
                layers,
                dropout,
                training,
                bidirectional,
            )
        y = torch.cat(ys) if packed else torch.stack(ys, steps)
        return y, *finals

    def cell(simulation, input, hx, w_ih, w_hh, b_ih=None, b_hh=None):
        if simulation is None or simulation.recipe is None:
            return NotImplemented
        weights = [w_ih, w_hh] if b_ih is None else [w_ih, w_hh, b_ih, b_hh]
        with simulation:
            state = _STEPS[name](input, tuple(hx) if several else (hx,), weights)
        return state if several else state[0]

    return layer, cell


for _name in _STEPS:
    _layer, _cell = _handler(_name)
    functions.handles(getattr(torch, _name))(_layer)
    functions.handles(getattr(torch, f"{_name}_cell"))(_cell)
