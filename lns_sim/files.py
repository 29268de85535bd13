"""Files that are whole or not there: written beside their path, and renamed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write_atomically(write: Callable[[BinaryIO], object], path: Path) -> None:
    """Lets ``write`` fill a file beside the path, waits for the disk, and renames, so that the file is always whole.

    Raises:
        OSError: it cannot be written; the file from before is still there.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
