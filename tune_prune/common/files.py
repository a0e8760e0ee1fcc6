"""Files that are written whole or not at all, whatever kills the process in between."""

import os
import secrets
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, line ends unchanged; otherwise as `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Put data under a path in one step: a reader sees the old file or the new one, never a part.

    Parent directories are created. On failure the old file stays, no other is left, and OSError is raised.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same directory, since a rename is atomic only within a file system; by open and not by tempfile,
    # whose files are 0600 whatever the umask; named shortly, since the name of `path` may be as long as any.
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # else a power cut may keep the rename and lose the data
        os.replace(temporary, path)
    except BaseException:  # an interrupt too must leave nothing behind
        temporary.unlink(missing_ok=True)
        raise
