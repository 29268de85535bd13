"""A fixture of tests that train networks for fewer steps than the tables' operands have."""

import pytest

from csrc.rtl.synthesis import operands


@pytest.fixture
def fresh_operands():
    """Operands that other tests made are not taken, nor are this test's kept."""
    cached = operands.convolution, operands.transformer, operands.streams
    for function in cached:
        function.cache_clear()
    yield
    for function in cached:
        function.cache_clear()
