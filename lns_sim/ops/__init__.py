"""Operators: the compiled ones with their fake kernels (``fake``), and the differentiable products made of them."""

from pathlib import Path

from lns_sim import _caches, _extension

_extension.load()
_caches.follow(*sorted(Path(__file__).parents[1].rglob("*.py")))

from lns_sim.ops import attention, convolution, embedding, fake, linear, product, values  # noqa: E402, F401
