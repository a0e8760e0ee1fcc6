"""Hashes what a result depends on, part by part, so that a change can be named: weights, splits, the user's code.

Data is hashed by its content, and so its code is not: what that returns is known.
"""

import hashlib
import inspect
import re
import sys
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn, uint8

from tune_prune.common.entrypoints import is_address, load
from tune_prune.common.errors import UserError, format_names
from tune_prune.tasks import in_memory
from tune_prune.tasks.settings import DEFAULT, TaskSettings

LIBRARIES = ("torch", "torchvision", "tune_prune")
"""Packages whose code is not hashed: a run notes their versions."""


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Hashes tensors with their names, types and shapes to 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)};".encode())
        # a view of the bytes, not a copy: a data set may be large
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(uint8).numpy().data)
    return digest.hexdigest()


def hash_texts(texts: Iterable[str]) -> str:
    """Hashes texts, in their order, to 32 hexadecimal digits."""
    return hashlib.blake2b("\0".join(texts).encode("utf-8", "replace"), digest_size=16).hexdigest()


def hash_code(model: nn.Module, name: str = "") -> str:
    """Hashes what a model computes, but for its weights: its structure, and the source of its classes and its factory.

    `name` is the model's name or address, whose factory counts where there is one. The source is the text of whole
    files; of a class or a function without a file, as in a notebook, its own text where Python knows it.
    """
    factories: list[object] = list(in_memory.find(name).values())
    if is_address(name) and not factories:
        factories = [sys.modules.get(name.partition(":")[0])]
    defined = [*(type(part) for part in model.modules()), *factories]
    sources = {source for each in defined if (source := _read_source(each)) is not None}
    structure = re.sub(r" at 0x[0-9a-f]+", "", repr(model))  # without addresses, which differ in every process
    return hash_texts([structure, *sorted(sources)])


def hash_function(address: str) -> str:
    """Hashes a function's address and the text of the files of its module and of its own; a `UserError` as of `load`.

    One that was handed over as an object counts without its address, which differs in every process.
    """
    kept = list(in_memory.find(address).values())
    function = kept[0] if kept else load(address)
    while isinstance(function, partial):
        function = function.func
    module = None if kept else sys.modules[address.partition(":")[0]]
    sources = {source for each in (module, function) if (source := _read_source(each)) is not None}
    return hash_texts(["" if kept else address, *sorted(sources)])


def _read_source(defined: object) -> str | None:
    """The text of the file that defines a class, a function or a module; None for libraries and where there is none."""
    if isinstance(defined, nn.Module):
        defined = type(defined)
    module = defined if inspect.ismodule(defined) else sys.modules.get(getattr(defined, "__module__", ""))
    if module is None or module.__name__.partition(".")[0] in LIBRARIES:
        return None
    try:
        path = inspect.getsourcefile(module)
        return Path(path).read_text(encoding="utf-8", errors="replace") if path else None
    except (OSError, TypeError):  # no file: the module of a notebook, or of a program given by `python -c`
        pass
    try:
        return inspect.getsource(defined)  # type: ignore[arg-type]
    except (OSError, TypeError):
        return None


class Fingerprinted(Protocol):
    """A split, whose parts are hashed by what messages call them."""

    def fingerprint(self) -> dict[str, str]:
        """The hashes."""
        ...


def check_unseen(parts: Mapping[str, str]) -> None:
    """Raises a `UserError` where the test split is one by which models are made: `--certify` needs unseen samples.

    `parts` are those of `fingerprint_task`, with all three splits.
    """
    test, *others = (
        {part.removeprefix(split): of for part, of in parts.items() if part.startswith(f"{split} ")}
        for split in ("test", "training", "validation")
    )
    if test in others:
        which = ("training", "validation")[others.index(test)]
        raise UserError(f"--certify needs unseen samples, and the test split is the {which} split; give another one")


def fingerprint_task(
    name: str,
    model: nn.Module,
    weights: Mapping[str, Tensor] | None,
    splits: Mapping[str, Fingerprinted],
    settings: TaskSettings = DEFAULT,
) -> dict[str, str]:
    """Fingerprints a model, the functions of its task and the splits that are used, such as "training": a hash by part.

    The parts are "model code", "loss code" and others where `settings` name functions, "task precision" and others
    where they name none, "weights" where some are given, "training inputs", "training labels", and so on; of tasks
    other than the default "training samples".
    """
    parts = {"model code": hash_code(model, name)}
    for key, value in settings.given.items():
        if isinstance(value, tuple):
            parts[f"{key} code"] = hash_texts(map(hash_function, value))
        elif is_address(value):
            parts[f"{key} code"] = hash_function(value)
        else:
            parts[f"task {key}"] = str(value)
    if weights is not None:
        parts["weights"] = hash_tensors(weights)
    for part, split in splits.items():
        parts |= {f"{part} {of}": value for of, value in split.fingerprint().items()}
    return parts


def check_unchanged(before: object, now: Mapping[str, object], where: str, advice: str) -> None:
    """Raises a `UserError` that names every part that is not as before, after `where` and followed by `advice`.

    `before` comes from a file; where it is no mapping, another version of the program wrote it.
    """
    if not isinstance(before, Mapping):
        raise UserError(f"{where}: begun by another version of tune-prune; {advice}")
    changed = [part for part in {**now, **before} if before.get(part) != now.get(part)]
    if changed:
        raise UserError(f"{where}: changed since it was begun: {format_names(changed)}; {advice}")
