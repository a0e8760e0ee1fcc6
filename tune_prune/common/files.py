"""Writes files whole or not at all, whenever the process is killed; finds links that lead out of a directory."""

import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tune_prune.common.errors import UserError


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


def shorten(path: Path) -> str:
    """A path as a user types it: from the working directory, where it lies in there."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def check_writable(folder: Path, option: str) -> None:
    """Raises a `UserError` that names the option where nothing can be written in a folder, or a folder not be made.

    It is tried with a file that is removed again: permissions do not tell of a file system that is mounted read-only.
    """
    there = next(parent for parent in [folder.absolute(), *folder.absolute().parents] if parent.exists())
    probe = there / f".{secrets.token_hex(8)}.tmp"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"{option} {folder}: nothing can be written in {there} ({error.strerror}); name another"
        ) from error


def check_contained(directory: Path) -> None:
    """Raises a `UserError` where a directory, which another person may have made, leads elsewhere.

    That is a symbolic link to something outside of it, at any depth, or what is neither a file nor a directory: a pipe
    would be waited for without end. The directory itself may be a link.
    """
    root = os.path.realpath(directory)
    for entry in _walk(root):
        path = directory / os.path.relpath(entry.path, root)
        if not entry.is_symlink():
            if not entry.is_file() and not entry.is_dir():
                raise UserError(f"{path}: neither a file nor a directory; remove it")
        elif not Path(os.path.realpath(entry.path)).is_relative_to(root):
            raise UserError(f"{path}: a link out of this directory, which is not followed; put a copy in its place")


def _walk(folder: str) -> Iterator["os.DirEntry[str]"]:
    """Lists what is in a folder and in its folders, without following links."""
    with (
        suppress(FileNotFoundError, NotADirectoryError),
        os.scandir(folder) as entries,
    ):  # a folder of another process, just removed
        for entry in entries:
            yield entry
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path)
