"""The torch-free C++ under address and undefined-behaviour sanitizers."""

import subprocess

import pytest
from standalone import compile_all, sources

SANITIZERS = "-fsanitize=address,undefined"


@pytest.mark.slow
def test_core_and_kernels_under_sanitizers(tmp_path, cxx):
    flags = ["-O1", "-g1", SANITIZERS, "-fno-sanitize-recover=all"]
    objects = compile_all(cxx, flags, sources("tests/core/cpp", "csrc/gemm", "csrc/cpu"), tmp_path)
    program = tmp_path / "core_test"
    subprocess.run([cxx, SANITIZERS, *objects, "-o", program], check=True)
    run = subprocess.run([program], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0 and run.stdout.strip() == "ok", run.stdout + run.stderr
