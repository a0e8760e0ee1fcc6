"""Writes files whole or not at all, whenever the process is killed."""

import os
import secrets
from pathlib import Path


def add_suffix(path: Path, suffix: str) -> Path:
    """Appends a suffix to a file's whole name: `m.lr0.1` becomes `m.lr0.1.csv`, where `with_suffix` makes `m.lr0.csv`.

    So files of different names have companions of different names.
    """
    return path.with_name(path.name + suffix)


def write_text(path: Path, text: str) -> None:
    """Writes text as UTF-8, line ends unchanged; otherwise like `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Replaces a file in one step: a reader sees the old content or the new, never a part.

    Parent directories are created. On failure the old file stays, no other file is left, and OSError is raised.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same directory, since a rename is atomic only within one file system. Not by tempfile, whose files have
    # mode 0600 whatever the umask. With a short name, since `path` may have a name of the greatest length.
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # else a power cut may keep the rename and lose the data
        os.replace(temporary, path)
    except BaseException:  # an interrupt too must leave no file behind
        temporary.unlink(missing_ok=True)
        raise
