"""Arrays from a NumPy file."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def read_npz(path: str | Path, names: tuple[str, ...]) -> list[np.ndarray]:
    """The named arrays of an npz file; nothing in it is executed.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is damaged, or something else, or lacks an array; the message names the file.
    """
    with open(path, "rb") as file:
        try:
            found = np.load(file, allow_pickle=False)
            arrays = {name: found[name] for name in found.files if name in names}
            held = found.files
        except Exception as error:  # of NumPy, zipfile and zlib, none of which name the file
            raise ValueError(f"{path} is no npz file of plain arrays, or is damaged") from error
    missing = [name for name in names if name not in arrays]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}; it holds {', '.join(held) or 'nothing'}")
    return [arrays[name] for name in names]
