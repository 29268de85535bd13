"""The CUDA sources compile where nvcc is, with or without a GPU: for Ampere, for Hopper, and as PTX. Optimizing
them, which takes minutes of the processor, is left to the build where torch has CUDA.
"""

import subprocess

import pytest
from helpers import ROOT
from torch.utils.cpp_extension import include_paths

CSRC = ROOT / "csrc"
pytestmark = pytest.mark.slow
TARGETS = ["arch=compute_80,code=sm_80", "arch=compute_90,code=sm_90", "arch=compute_90,code=compute_90"]


@pytest.mark.parametrize("source", sorted((CSRC / "cuda").glob("*.cu")), ids=lambda p: p.name)
def test_kernels_compile_for_every_target(source, tmp_path, nvcc):
    command = [
        nvcc,
        "-std=c++20",
        "--Ofast-compile=max",
        "--fmad=false",
        "--threads=0",
        f"-I{CSRC}",
        "-Xptxas=-v",
        "-c",
        source,
        "-o",
        tmp_path / "kernels.o",
    ]
    run = subprocess.run(command + [f"-gencode={t}" for t in TARGETS], capture_output=True, text=True)
    assert run.returncode == 0 and "warning" not in run.stderr, run.stderr
    assert "sm_80" in run.stderr and "sm_90" in run.stderr


@pytest.mark.parametrize("source", sorted((CSRC / "ops/cuda").glob("*.cpp")), ids=lambda p: p.name)
def test_the_operators_behind_them_compile(source, tmp_path, nvcc):
    flags = "-fvisibility=hidden,-Wall,-Wextra,-Werror,-Wno-unused-parameter"
    command = [
        nvcc,
        "-std=c++20",
        f"-Xcompiler={flags}",
        f"-I{CSRC}",
        *(f"-isystem={p}" for p in include_paths()),
        "-DTORCH_TARGET_VERSION=0x020a000000000000",
        "-c",
        source,
        "-o",
        tmp_path / "operators.o",
    ]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
