"""The torch-free C++ under address and undefined-behaviour sanitizers."""

import subprocess

import pytest
from helpers import ROOT


@pytest.mark.slow
def test_core_and_kernels_under_sanitizers(tmp_path, cxx):
    sources = sorted(f for part in ("tests/core/cpp", "csrc/gemm", "csrc/cpu") for f in (ROOT / part).glob("*.cpp"))
    objects, compiles = [], []
    for source in sources:
        objects.append(tmp_path / f"{source.stem}.o")
        command = [
            cxx,
            "-std=c++20",
            "-O1",
            "-g1",
            "-fsanitize=address,undefined",
            "-fno-sanitize-recover=all",
            "-ffp-contract=off",
            "-Wno-psabi",
            f"-I{ROOT / 'csrc'}",
            "-c",
            source,
            "-o",
            objects[-1],
        ]
        compiles.append(subprocess.Popen(command))
        if len(compiles) % 2 == 0:
            assert all(p.wait() == 0 for p in compiles)
    assert all(p.wait() == 0 for p in compiles)
    program = tmp_path / "core_test"
    subprocess.run([cxx, "-fsanitize=address,undefined", *objects, "-o", program], check=True)
    run = subprocess.run([program], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0 and run.stdout.strip() == "ok", run.stdout + run.stderr
