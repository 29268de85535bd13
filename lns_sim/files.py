"""Files that are whole or not there, written beside their path and renamed; folders that nothing lies in yet."""

from __future__ import annotations

import json
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


def write_json(record: object, path: Path) -> None:
    """Plain data by :func:`write_atomically`."""
    write_atomically(lambda file: file.write(json.dumps(record, indent=1).encode()), path)


def numbered(parent: Path) -> list[Path]:
    """The folders that :func:`new_folder` made there, oldest first."""
    found = [path for path in parent.glob("*") if path.name.isdecimal() and path.is_dir()]
    return sorted(found, key=lambda path: int(path.name))


def new_folder(parent: Path) -> Path:
    """Makes the next numbered folder: ``parent/1``, ``parent/2`` and so on.

    Raises:
        OSError: it cannot be made.
    """
    while True:
        known = numbered(parent)
        folder = parent / str(int(known[-1].name) + 1 if known else 1)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:  # another process was faster
            continue
        return folder
