"""What is packed and installed: the source distribution, and a wheel in an environment of its own; what stands in the
way is said before anything is compiled.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

import pytest
import torch
from helpers import ROOT, core

import lns_sim

# Torch as setup.py sees it, without its seconds of import: of which CUDA it is, and where nvcc is.
STANDS_FOR_TORCH = """
import os
class version: cuda = os.environ.get("TORCH_CUDA")
"""
STANDS_FOR_BUILDING = """
import os
CUDA_HOME = os.environ.get("CUDA_HOME")
from setuptools.command.build_ext import build_ext
class BuildExtension(build_ext): with_options = classmethod(lambda cls, **options: cls)
include_paths = library_paths = lambda device: []
"""


def tracked() -> list[str]:
    """The files of the checkout."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is not a git checkout, whose files a source distribution is compared with")
    run = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in run.stdout.splitlines() if (ROOT / name).exists()]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy, in which nothing was built."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in tracked():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


def setup(checkout, *arguments, **environment):
    """setup.py with these arguments."""
    command = [sys.executable, "-P" if sys.version_info >= (3, 11) else "-B", "setup.py", "-q", *arguments]
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True, env={**os.environ, **environment})


@pytest.fixture
def stand_in(tmp_path):
    """A folder with a torch for setup.py to import."""
    package = tmp_path / "stand_in/torch/utils"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text(STANDS_FOR_TORCH)
    (package / "__init__.py").touch()
    (package / "cpp_extension.py").write_text(STANDS_FOR_BUILDING)
    return tmp_path / "stand_in"


def test_the_source_distribution_holds_the_checkout(checkout, tmp_path):
    """Also where there is no torch."""
    (tmp_path / "torch.py").write_text("raise ImportError")
    run = setup(checkout, "sdist", "-d", tmp_path, PYTHONPATH=str(tmp_path))
    assert run.returncode == 0, run.stderr
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    assert set(tracked()) <= names
    for kind in (
        "csrc/cuda/gemm.cu",
        "csrc/rtl/pe/lns_pe.sv",
        "docs/arithmetic.md",
        "docs/guides/first_steps.py",
        "Makefile",
    ):
        assert kind in names
    assert not [name for name in names if name.endswith((".so", ".pyc"))]


HINDRANCES = {
    "another word": ({"LNS_SIM_CUDA": "yes"}, "LNS_SIM_CUDA is 0, 1 or unset, got 'yes'"),
    "torch for CPUs": ({"LNS_SIM_CUDA": "1"}, "LNS_SIM_CUDA=1 needs a CUDA build of torch"),
    "no nvcc": ({"LNS_SIM_CUDA": "1", "TORCH_CUDA": "13.0"}, "LNS_SIM_CUDA=1 needs nvcc, which was not found"),
    "nvcc alone": (
        {"TORCH_CUDA": "13.0", "CUDA_HOME": "nvcc_alone"},
        "CUDA's headers are not: install the whole toolkit",
    ),
    "no compiler": ({"CXX": "no-such-c++"}, "needs a C++20 compiler, but there is no no-such-c++"),
}


@pytest.mark.parametrize("environment, said", HINDRANCES.values(), ids=HINDRANCES)
def test_what_stands_in_the_way_is_one_sentence(checkout, stand_in, environment, said):
    alone = checkout / "nvcc_alone/bin/nvcc"
    alone.parent.mkdir(parents=True, exist_ok=True)
    alone.touch()
    run = setup(checkout, "build_ext", **{"LNS_SIM_CUDA": "", "PYTHONPATH": str(stand_in), **environment})
    assert run.returncode == 1 and said in run.stderr and len(run.stderr.splitlines()) == 1, run.stderr


def test_a_build_with_cuda_has_its_version_in_its_name(checkout, stand_in):
    home = checkout / "toolkit"
    for name in ("bin/nvcc", "include/cuda_runtime.h"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).touch()
    found = {"TORCH_CUDA": "13.0", "CUDA_HOME": str(home), "PYTHONPATH": str(stand_in)}
    for asked, suffix in (("", "+cu130"), ("1", "+cu130"), ("0", "")):
        run = setup(checkout, "--version", LNS_SIM_CUDA=asked, **found)
        assert run.stdout.strip() == f"{lns_sim.__version__}{suffix}", run.stderr


def test_torch_is_said_to_be_missing(checkout, tmp_path):
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(name='torch')")
    run = setup(checkout, "build_ext", PYTHONPATH=str(tmp_path))
    assert run.returncode == 1 and "needs torch, which is not installed" in run.stderr, run.stderr
    assert len(run.stderr.splitlines()) == 1


def test_an_old_setuptools_is_said_to_be_old(checkout, tmp_path):
    (tmp_path / "setuptools/command").mkdir(parents=True)
    (tmp_path / "setuptools/__init__.py").write_text("__version__ = '65.5.0'; Extension = find_packages = setup = None")
    (tmp_path / "setuptools/command/build_py.py").write_text("build_py = object")
    run = setup(checkout, "sdist", PYTHONPATH=str(tmp_path))
    assert run.returncode == 1 and len(run.stderr.splitlines()) == 1, run.stderr
    assert "needs setuptools >= 77, found 65.5.0" in run.stderr


def test_the_lock_file_pins_all_that_is_asked_for():
    def pins(name):
        lines = (re.split(r"\s*[#;]", line)[0] for line in (ROOT / name).read_text().splitlines())
        return {line for line in lines if line}

    asked, locked = pins("requirements.txt"), pins("requirements.lock")
    assert asked <= locked and len(locked) > len(asked) and "click==8.4.2" in locked
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9.]+(post[0-9]+)?", pin) for pin in locked)  # no addresses


def test_designs_need_nothing_that_a_wheel_lacks():
    code = "import sys; sys.modules['csrc'] = None; import lns_sim.rtl.design as d; print(d.tables.__name__)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.strip() == "lns_sim.rtl.tables"


@pytest.mark.slow
def test_a_wheel_runs_in_an_environment_of_its_own(checkout, tmp_path):
    """The extension is the one in use, so that nothing is compiled; the dependencies are those of this environment."""
    lib = tmp_path / "lib"
    base = lns_sim.__version__
    if core.build_info()["cuda"] is not None:
        base += f"+cu{torch.version.cuda.replace('.', '')}"
    chosen = {"LNS_SIM_CUDA": "" if "+" in base else "0"}
    (checkout / "setup.cfg").write_text(f"[build]\nbuild_lib = {lib}\n[bdist_wheel]\nskip_build = 1\n")
    assert (run := setup(checkout, "build_py", **chosen)).returncode == 0, run.stderr
    shutil.copy(core.__file__, lib / "lns_sim")
    assert (run := setup(checkout, "bdist_wheel", "-d", tmp_path, **chosen)).returncode == 0, run.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.startswith(f"lns_sim-{base}-cp{sys.version_info[0]}{sys.version_info[1]}-")

    home = tmp_path / "venv"
    venv.create(home)
    python = home / "bin/python"
    subprocess.run(
        [sys.executable, "-m", "pip", "-q", "--python", python, "install", "--no-deps", "--no-index", wheel], check=True
    )
    (installed,) = home.glob("lib/python*/site-packages")
    (installed / "dependencies.pth").write_text(str(Path(torch.__file__).parents[1]))
    where = [python, "-c", "import lns_sim; print(lns_sim.__file__)"]
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run_it(*command):
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, env=clean).stdout

    assert run_it(*where).strip() == str(installed / "lns_sim/__init__.py")
    program = home / "bin/lns-sim"
    assert "cycles" in run_it(program, "--help") and "scalar" in run_it(program, "info")
    assert base in run_it(program, "--version")
    run_it(program, "rtl", "hardware", "--acc-bits", "20")
    for name in ("README.md", "files.f", "pe/lns_pe.sv", "simulation/testbench.cpp", "guides/vectors_for_rtl.py"):
        assert (tmp_path / "hardware" / name).exists(), name
