"""Operators: the compiled ones with their fake kernels (``fake``), and the differentiable products made of them."""

from lns_sim import _extension

_extension.load()

from lns_sim.ops import attention, convolution, embedding, fake, linear, product, values  # noqa: E402, F401
