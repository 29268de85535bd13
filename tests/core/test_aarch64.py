"""Core and kernels on AArch64: compiled by a cross compiler, run and counted by QEMU."""

import os
import subprocess

import pytest
from helpers import ROOT
from standalone import compile_all, sources
from tools import require_tool

pytestmark = pytest.mark.slow
HERE = ROOT / "tests/core/aarch64"
BEFORE_DOTPROD = "cortex-a72"  # Armv8.0: Graviton 1, Raspberry Pi 4


@pytest.fixture(scope="module")
def compiler():
    return require_tool("aarch64-linux-gnu-g++")


@pytest.fixture(scope="module")
def emulator():
    return require_tool("qemu-aarch64")


@pytest.fixture(scope="module")
def kernels(compiler, tmp_path_factory):
    """The kernels' objects, compiled as setup.py compiles them."""
    flags = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-Wall", "-Wextra", "-Werror"]
    return compile_all(compiler, flags, sources("csrc/gemm", "csrc/cpu"), tmp_path_factory.mktemp("kernels"))


@pytest.fixture(scope="module")
def product(compiler, kernels, tmp_path_factory):
    folder = tmp_path_factory.mktemp("product")
    program = folder / "product"
    objects = compile_all(compiler, ["-O1"], [HERE / "product.cpp"], folder)
    subprocess.run([compiler, "-static", *objects, *kernels, "-o", program], check=True)
    return program


@pytest.fixture(scope="module")
def counter(cxx, product, emulator, tmp_path_factory):
    """QEMU's plugin, for the version of the interface that this QEMU has."""
    plugin = tmp_path_factory.mktemp("plugin") / "instructions.so"
    for interface in range(1, 10):
        flags = ["-x", "c", "-shared", "-fPIC", f"-DINTERFACE={interface}"]
        subprocess.run([cxx, *flags, HERE / "instructions.c", "-o", plugin], check=True)
        if (
            subprocess.run([emulator, "-plugin", plugin, product, *"1 1 1 0".split()], capture_output=True).returncode
            == 0
        ):
            return plugin
    pytest.fail("this QEMU takes no plugin of the versions 1 to 9")


def test_core_and_kernels(compiler, emulator, kernels, tmp_path):
    """On every instruction set: all that is compared on x86-64, too."""
    program = tmp_path / "core_test"
    objects = compile_all(compiler, ["-O1"], sources("tests/core/cpp"), tmp_path)
    subprocess.run([compiler, "-static", *objects, *kernels, "-o", program], check=True)
    for cpu in ("max", BEFORE_DOTPROD):
        run = subprocess.run([emulator, "-cpu", cpu, program], capture_output=True, text=True, timeout=300)
        assert run.returncode == 0 and run.stdout.strip() == "ok", run.stdout + run.stderr


def test_the_dot_product_instructions_are_found_at_run_time(product, emulator):
    size = "64 64 64 1".split()
    for cpu, expected in (("neoverse-n1", "neon_dotprod permute8"), (BEFORE_DOTPROD, "scalar lookup32")):
        run = subprocess.run([emulator, "-cpu", cpu, product, *size], capture_output=True, text=True, check=True)
        assert run.stdout.strip() == expected


def instructions(emulator, counter, product, isa, size) -> int:
    """Executed by one product, the preparation of the program and of its data taken off."""

    def executed(runs):
        command = [emulator, "-plugin", counter, product, *map(str, size), str(runs)]
        run = subprocess.run(
            command, capture_output=True, text=True, check=True, env={**os.environ, "LNS_SIM_ISA": isa}
        )
        return int(run.stderr)

    return executed(1) - executed(0)


# Where few rows share a table, the portable kernels look products up one by one; of many rows they add whole rows,
# which is as good on vectors of 128 bits.
@pytest.mark.parametrize(
    "size, least", [((16, 16, 128), 3.5), ((64, 64, 128), 4), ((128, 64, 128), 1.7), ((1024, 16, 128), 1.3)]
)
def test_instructions_beside_the_portable_kernels(product, emulator, counter, size, least):
    portable, neon = (instructions(emulator, counter, product, isa, size) for isa in ("scalar", "neon_dotprod"))
    assert portable / neon > least, f"{portable} instructions, {neon} with NEON"
