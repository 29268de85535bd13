"""Loads the compiled extension, or says what to run. There is no fallback."""

from __future__ import annotations

from functools import lru_cache

import torch

from lns_sim import contract
from lns_sim.version import __version__

REBUILD = "pip install --no-build-isolation -e ."
CUDA_REBUILD = f"have nvcc and a CUDA build of torch, then {REBUILD}"


@lru_cache(maxsize=1)
def load():
    """The extension module; importing it registers the operators in ``torch.ops.lns_sim``.

    Raises:
        ImportError: it was not built, was built for another Python or from other sources of lns_sim, or needs a
            newer torch.
        ValueError: LNS_SIM_ISA names an instruction set that this machine or build does not have.
    """
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < (2, 10):
        raise ImportError(f"lns_sim needs torch >= 2.10, found {torch.__version__}: pip install 'torch>=2.10'")
    try:
        from lns_sim import _C
    except ImportError as error:
        raise ImportError(
            f"lns_sim's compiled extension does not load ({error}). Build it for this Python and torch with: {REBUILD}"
        ) from error
    if _C.__version__ != __version__:
        raise ImportError(
            f"lns_sim is version {__version__}, but its compiled extension is {_C.__version__}. Rebuild with: {REBUILD}"
        )
    if found := contract.mismatch(_C):
        raise ImportError(
            f"lns_sim's compiled extension is of another state of its sources ({found}). Rebuild with: {REBUILD}"
        )
    _C.isa()
    return _C
