"""Fixtures: the instruction set, and deterministic hypothesis runs."""

import numpy as np
import pytest
from helpers import DEVICES, ISAS
from hypothesis import HealthCheck, settings

import lns_sim

settings.register_profile(
    "lns_sim",
    deadline=None,
    derandomize=True,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("lns_sim")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(params=DEVICES)
def device(request):
    """Runs a test once per device that this machine has kernels for."""
    return request.param


@pytest.fixture(params=ISAS)
def isa(request):
    """Runs a test once per instruction set that this machine has."""
    core = lns_sim._extension.load()
    before = core.isa()
    core.set_isa(request.param)
    yield request.param
    core.set_isa(before)
