"""Builds lns_sim._C: the torch-free core with its Python bindings, and the operators on torch's stable ABI.

LNS_SIM_CUDA=1 asks for the CUDA kernels and 0 leaves them out; unset, they are built where nvcc and a CUDA build of
torch are found. TORCH_CUDA_ARCH_LIST names their GPUs (e.g. "8.0;9.0+PTX", the default: Ampere, Hopper, and whatever
comes later)."""

import os
import platform
import re
import shutil
import sys
import sysconfig
from pathlib import Path

import setuptools
from setuptools import Extension, find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "lns_sim/version.py").read_text()).group(1)
TORCH_ABI = (2, 10)  # the oldest torch whose stable ABI the binary needs
VECTORS = {"x86_64": "avx", "aarch64": "neon"}  # the names of files with an architecture's own instructions
OTHERS = tuple(name for machine, name in VECTORS.items() if machine != platform.machine())
# What a wheel has of folders outside the package: `lns-sim rtl` writes it.
SHIPPED = {
    "lns_sim/rtl": ("csrc/rtl", ["design.py", "tables.py", "*/*.sv", "simulation/*_vectors.py", "simulation/*.cpp"]),
    "lns_sim/rtl/guides": ("docs/guides", ["*.py"]),
}


class BuildPython(build_py):
    """Adds what is shipped; an installation in place finds it where it is."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for package, (folder, patterns) in SHIPPED.items():
                for path in (p for pattern in patterns for p in (ROOT / folder).glob(pattern)):
                    to = Path(self.build_lib, package, path.relative_to(ROOT / folder))
                    to.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(path, to)


def wants_cuda(torch_cuda: str | None, home: str | None) -> bool:
    """Are the CUDA kernels built? Ends the installation where they cannot be."""
    asked = os.environ.get("LNS_SIM_CUDA", "")
    if asked not in ("", "0", "1"):
        sys.exit(f"LNS_SIM_CUDA is 0, 1 or unset, got {asked!r}")
    if asked == "1" and torch_cuda is None:
        sys.exit("LNS_SIM_CUDA=1 needs a CUDA build of torch, and the one found is for CPUs only")
    if asked == "0" or torch_cuda is None:
        return False
    if home is None or not Path(home, "bin/nvcc").exists():
        if asked == "1":
            sys.exit("LNS_SIM_CUDA=1 needs nvcc, which was not found: install the CUDA toolkit, or set CUDA_HOME")
        return False
    if not any(
        Path(home, folder, "cuda_runtime.h").exists()
        for folder in ("include", f"targets/{platform.machine()}-linux/include")
    ):
        sys.exit(f"nvcc is in {home}, but CUDA's headers are not: install the whole toolkit, or set LNS_SIM_CUDA=0")
    return True


def sources(left_out: set[str], *suffixes: str) -> list[str]:
    """Files under csrc; hardware and those of other devices and processors are left out."""
    files = (p.relative_to(ROOT) for p in (ROOT / "csrc").rglob("*") if p.suffix in suffixes)
    return sorted(str(p) for p in files if not left_out & {*p.parts} and not p.name.startswith(OTHERS))


def compiled() -> dict:
    """What setup takes for the extension. Ends the installation where something that it needs is missing."""
    try:
        import torch
        from pybind11 import get_include
        from torch.utils.cpp_extension import CUDA_HOME, BuildExtension, include_paths, library_paths
    except ModuleNotFoundError as error:
        sys.exit(
            f"lns_sim is compiled and needs {error.name}, which is not installed: install torch >= "
            f"{TORCH_ABI[0]}.{TORCH_ABI[1]}, pybind11 and ninja, or leave --no-build-isolation out"
        )
    cuda = wants_cuda(torch.version.cuda, CUDA_HOME)
    compiler = os.environ.get("CXX", "c++").split()[0]
    if shutil.which(compiler) is None:
        sys.exit(f"lns_sim is compiled and needs a C++20 compiler, but there is no {compiler}: install g++, or set CXX")
    if not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")):
        sys.exit(
            "lns_sim is compiled and needs Python's headers: install python3-dev (Debian) or python3-devel (Fedora)"
        )
    gpus = os.environ.setdefault("TORCH_CUDA_ARCH_LIST", "8.0;9.0+PTX")
    device, left_out = ("cuda", {"rtl"}) if cuda else ("cpu", {"rtl", "cuda"})
    macros = [
        ("TORCH_TARGET_VERSION", f"0x{TORCH_ABI[0]:02x}{TORCH_ABI[1]:02x}000000000000"),
        ("LNS_SIM_VERSION", f'"{VERSION}"'),
        ("LNS_SIM_TORCH_ABI", f'"{TORCH_ABI[0]}.{TORCH_ABI[1]}"'),
        ("LNS_SIM_COMPILER", "__VERSION__"),
    ]
    if cuda:
        about = f"CUDA {torch.version.cuda} for compute capability {gpus.replace(';', ', ')}"
        macros.append(("LNS_SIM_CUDA", f'"{about}"'))
    extension = Extension(
        "lns_sim._C",
        sources=sources(left_out, ".cpp", ".cu"),
        depends=sources(left_out, ".h", ".inc", ".cuh"),
        include_dirs=[str(ROOT / "csrc"), get_include(), *include_paths(device)],
        library_dirs=library_paths(device),
        libraries=["torch_cpu", *(["torch_cuda", "cudart"] if cuda else [])],
        define_macros=macros,
        extra_compile_args={
            # Float arithmetic must round once per written operation: no contraction, no fast-math.
            "cxx": [
                "-std=c++20",
                "-O3",
                "-fvisibility=hidden",
                "-ffp-contract=off",
                "-fno-math-errno",
                "-fno-trapping-math",
                "-Wall",
                "-Wextra",
                "-Wno-unused-parameter",
                "-Wno-psabi",
            ],
            "nvcc": ["-std=c++20", "-O3", "--fmad=false", "-Xcompiler=-fvisibility=hidden"],
        },
        language="c++",
    )
    return {
        # A wheel with CUDA kernels is another one than that of any torch.
        "version": f"{VERSION}+cu{torch.version.cuda.replace('.', '')}" if cuda else VERSION,
        "ext_modules": [extension],
        "cmdclass": {"build_ext": BuildExtension.with_options(no_python_abi_suffix=False), "build_py": BuildPython},
    }


if int(setuptools.__version__.partition(".")[0]) < 77:  # which knows a licence by its name
    sys.exit(f"lns_sim needs setuptools >= 77, found {setuptools.__version__}: pip install 'setuptools>=77'")
# A source distribution is the same whatever machine makes it, one without torch, too.
only_sources = {"sdist", "egg_info"} & {*sys.argv[1:]}
setup(
    packages=[*find_packages(include=["lns_sim*"]), "lns_sim_command"],
    package_dir={"lns_sim_command": "lns_sim/command"},  # which imports no lns_sim, and so no torch
    **({"version": VERSION} if only_sources else compiled()),
)
