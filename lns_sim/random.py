"""The random state that stochastic quantizers and updates draw from, and its streams (spec section 6)."""

from __future__ import annotations

import torch
from torch import Tensor

from lns_sim.checks import check_int
from lns_sim.contract import RANDOM_STATE, TENSOR_ID

# Random streams of a tensor's quantizers: added to its id.
STREAMS = {"activation": 0, "error": 1, "gradient": 2, "update": 3}


def random_state(
    seed: int | None, step: int = 0, tensor_id: int = 0, device: torch.device | str | None = None
) -> Tensor:
    """The operators' random state (spec section 6), in the order of ``contract.RANDOM_STATE``; no seed: one from
    torch's generator.

    The first element is 0; of a shard of a tensor it is the index in the whole tensor.

    Raises:
        ValueError: seed is not in [0, 2^64), or step or tensor_id not in [0, 2^32).
    """
    check_int("step", step, 0, (1 << 32) - 1)
    check_int("tensor_id", tensor_id, 0, (1 << 32) - 1)
    if seed is None and _draws is not None:
        return _draws.state(step, tensor_id)
    if seed is None:  # as a tensor, which a compiler can follow
        drawn = torch.randint(1 << 62, (1,), device="cpu")
        return torch.cat([drawn, torch.tensor([step, tensor_id, 0], device="cpu")]).to(device)
    check_int("seed", seed, 0, (1 << 64) - 1)
    signed = seed - (1 << 64) if seed >> 63 else seed
    return torch.tensor([signed, step, tensor_id, 0], dtype=torch.int64, device=device)


class Draws:
    """The random states without a seed that are asked for inside ``with draws: ...``, where a CUDA graph is captured.

    What is captured reads them in this object's memory; :meth:`draw` draws them anew from torch's generator, in the
    order in which they were asked for, as the same code does that is not captured.

    Args:
        device: of the states.
    """

    MOST = 1 << 12

    def __init__(self, device: torch.device):
        self._states = torch.zeros(self.MOST, len(RANDOM_STATE), dtype=torch.int64, device=device)
        self._asked: list[tuple[int, int]] = []

    def state(self, step: int, tensor_id: int) -> Tensor:
        """The next one.

        Raises:
            RuntimeError: there is no room for so many.
        """
        if len(self._asked) == self.MOST:
            raise RuntimeError(f"more than {self.MOST} random states are drawn from torch's generator")
        self._asked.append((step, tensor_id))
        return self._states[len(self._asked) - 1].clone()

    def draw(self) -> None:
        """Draws all of them; no GPU is waited for."""
        if self._asked:
            drawn = torch.randint(1 << 62, (len(self._asked), 1), device="cpu")
            rest = torch.tensor([(*asked, 0) for asked in self._asked], device="cpu")
            self._states[: len(self._asked)].copy_(torch.cat([drawn, rest], 1), non_blocking=True)

    def __enter__(self) -> Draws:
        global _draws
        _draws = self
        return self

    def __exit__(self, *_: object) -> None:
        global _draws
        _draws = None


_draws: Draws | None = None


def stream_of(rng: Tensor, stream: str, x: Tensor) -> Tensor:
    """The random state of one of a tensor's streams, for the elements of x, made where the tensor is: without numbers
    where x has none.
    """
    if x.is_meta:
        return torch.empty_like(rng, device="meta")
    rng = rng.clone()
    rng[TENSOR_ID] += STREAMS[stream]
    return rng


def draw(x: Tensor, rng: Tensor) -> Tensor:
    """A float32 number in [0, 1) for each element of x: the same on every device (spec section 6)."""
    return torch.ops.lns_sim.uniform(x, rng)
