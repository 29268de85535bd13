"""Fixtures: devices, instruction sets, programs that tests need; hypothesis' profiles; which tests are fast."""

import os

import numpy as np
import pytest
from helpers import DEVICES, ISAS
from hypothesis import HealthCheck, settings
from tools import require_tool

import lns_sim

settings.register_profile(
    "lns_sim",
    deadline=None,
    derandomize=True,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile(
    "nightly", settings.get_profile("lns_sim"), derandomize=False, max_examples=1000, print_blob=True
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "lns_sim"))


@pytest.fixture(autouse=True)
def no_width(monkeypatch):
    """Tables are as wide as without a terminal, whatever COLUMNS is in the shell, or to xdist's workers."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Marks as fast what is not slow, and for the GPU what compares devices, before ``-m`` chooses."""
    for item in items:
        if item.get_closest_marker("slow") is None:
            item.add_marker("fast")
        if compares_devices(item):
            item.add_marker("gpu")


def compares_devices(item) -> bool:
    """Does a test run on a GPU, or call what runs everywhere (support/helpers.py and agreement.py)?"""
    given = getattr(item, "callspec", None)
    if given is not None and "device" in given.params:
        return given.params["device"] == "cuda"
    function = getattr(item.function, "hypothesis", None)
    function = item.function if function is None else function.inner_test
    return not {"everywhere", "agree", "every_isa_agrees"}.isdisjoint(function.__code__.co_names)


def program(name):
    """A fixture: the path of a program, without which its tests are skipped, or fail where LNS_SIM_REQUIRE_TOOLS=1."""

    @pytest.fixture(scope="session")
    def path():
        return require_tool(name)

    return path


browser, cxx, icarus, nvcc, sta, verilator, yosys = map(
    program, ("browser", "c++", "iverilog", "nvcc", "sta", "verilator", "yosys")
)


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
