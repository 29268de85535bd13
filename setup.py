"""Builds lns_sim._C: the torch-free core with its Python bindings, and the operators on torch's stable ABI.

CUDA kernels are built where nvcc and a CUDA build of torch are found, for the GPUs that TORCH_CUDA_ARCH_LIST names
(e.g.
"8.0;9.0+PTX", the default: Ampere, Hopper, and whatever comes later)."""

import os
import platform
import re
import sys
import sysconfig
from pathlib import Path

import torch
from pybind11 import get_include
from setuptools import Extension, find_packages, setup
from torch.utils.cpp_extension import CUDA_HOME, BuildExtension, include_paths, library_paths

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "lns_sim/version.py").read_text()).group(1)
TORCH_ABI = (2, 10)  # the oldest torch whose stable ABI the binary needs
CUDA = torch.version.cuda is not None and CUDA_HOME is not None
DEVICE = "cuda" if CUDA else "cpu"
VECTORS = {"x86_64": "avx", "aarch64": "neon"}  # the names of files with an architecture's own instructions
OTHERS = tuple(name for machine, name in VECTORS.items() if machine != platform.machine())
GPUS = os.environ.setdefault("TORCH_CUDA_ARCH_LIST", "8.0;9.0+PTX")

if not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")):
    sys.exit("lns_sim is compiled and needs Python's headers: install python3-dev (Debian) or python3-devel (Fedora)")


def sources(*suffixes: str) -> list[str]:
    """Files under csrc; hardware and those of other devices and processors are left out."""
    files = (p.relative_to(ROOT) for p in (ROOT / "csrc").rglob("*") if p.suffix in suffixes)
    left_out = {"rtl"} if CUDA else {"rtl", "cuda"}
    return sorted(str(p) for p in files if not left_out & {*p.parts} and not p.name.startswith(OTHERS))


MACROS = [
    ("TORCH_TARGET_VERSION", f"0x{TORCH_ABI[0]:02x}{TORCH_ABI[1]:02x}000000000000"),
    ("LNS_SIM_VERSION", f'"{VERSION}"'),
    ("LNS_SIM_TORCH_ABI", f'"{TORCH_ABI[0]}.{TORCH_ABI[1]}"'),
    ("LNS_SIM_COMPILER", "__VERSION__"),
]
if CUDA:
    MACROS.append(("LNS_SIM_CUDA", f'"CUDA {torch.version.cuda} for compute capability {GPUS.replace(";", ", ")}"'))

extension = Extension(
    "lns_sim._C",
    sources=sources(".cpp", ".cu"),
    depends=sources(".h", ".inc", ".cuh"),
    include_dirs=[str(ROOT / "csrc"), get_include(), *include_paths(DEVICE)],
    library_dirs=library_paths(DEVICE),
    libraries=["torch_cpu", *(["torch_cuda", "cudart"] if CUDA else [])],
    define_macros=MACROS,
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

setup(
    packages=[*find_packages(include=["lns_sim*"]), "lns_sim_command"],
    package_dir={"lns_sim_command": "lns_sim/command"},  # which imports no lns_sim, and so no torch
    ext_modules=[extension],
    cmdclass={"build_ext": BuildExtension.with_options(no_python_abi_suffix=False)},
)
