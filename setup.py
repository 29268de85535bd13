"""Builds lns_sim._C: the torch-free core with its Python bindings, and the operators on torch's stable ABI."""

import os
import re
import sys
import sysconfig
from pathlib import Path

from pybind11 import get_include
from setuptools import Extension, setup
from torch.utils.cpp_extension import BuildExtension, include_paths, library_paths

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "lns_sim/version.py").read_text()).group(1)
TORCH_ABI = (2, 10)  # the oldest torch whose stable ABI the binary needs

if not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")):
    sys.exit("lns_sim is compiled and needs Python's headers: install python3-dev (Debian) or python3-devel (Fedora)")

extension = Extension(
    "lns_sim._C",
    sources=sorted(str(p.relative_to(ROOT)) for p in (ROOT / "csrc").rglob("*.cpp")),
    depends=sorted(str(p.relative_to(ROOT)) for p in (ROOT / "csrc").rglob("*") if p.suffix in {".h", ".inc"}),
    include_dirs=[str(ROOT / "csrc"), get_include(), *include_paths()],
    library_dirs=library_paths(),
    libraries=["torch_cpu"],
    define_macros=[
        ("TORCH_TARGET_VERSION", f"0x{TORCH_ABI[0]:02x}{TORCH_ABI[1]:02x}000000000000"),
        ("LNS_SIM_VERSION", f'"{VERSION}"'),
        ("LNS_SIM_TORCH_ABI", f'"{TORCH_ABI[0]}.{TORCH_ABI[1]}"'),
        ("LNS_SIM_COMPILER", '__VERSION__'),
    ],
    # Float arithmetic must round once per written operation: no contraction, no fast-math.
    extra_compile_args=["-std=c++20", "-O3", "-fvisibility=hidden", "-ffp-contract=off", "-fno-math-errno",
                        "-fno-trapping-math", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-psabi"],
    language="c++",
)

setup(ext_modules=[extension], cmdclass={"build_ext": BuildExtension.with_options(no_python_abi_suffix=False)})
