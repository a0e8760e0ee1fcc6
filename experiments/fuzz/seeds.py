"""Makes the inputs that the fuzzer begins with: correct files, and files with one thing wrong in each.

python experiments/fuzz/seeds.py READER FOLDER
"""

import json
import os
import random
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import run_directory
import torch
from safetensors.torch import save
from torch import Tensor, nn

from tune_prune.export import sparse_format
from tune_prune.pruning import checkpoint, masks, statistics_cache
from tune_prune.pruning.statistics import Context
from tune_prune.tasks.splits import Split

ROOT = Path(__file__).parents[2]

WRONG_VALUES = (
    '"x"', "-1", "2.5", "true", "[]", "[1, 1]", '["x", "x"]', "{}", "{low = 2, high = 1}", "{low = 0, high = 1}",
)  # fmt: skip
"""One of every kind that TOML has: most keys refuse most of them."""

WRONG_CONFS = (
    "", "\n", "# only a note", "1,4\n", "1,1\n0.5,0.5", "1,4\n0.5", "1\n1.0", "1\nnan", "1\nx", "1,,4\n0.1,0.2,0.3",
    "1\n0.5\nmag,mag", "1\n0.5\n#mag", "1\n0.5\n\n# [table]\n# a = [1,\n# a = 1979-05-27",
    "\ufeff1 , 4\r\n0.5,0.7\r\nmag , l1",
)  # fmt: skip

WRONG_JSON = ("null", "true", "-1", "2.5", "1e999", "NaN", '""', '"x"', "[]", '["x"]', "{}", '{"x": -1}')
"""One of every kind that JSON has."""

WRONG_HEADERS = (
    "", "null", "[]", '{"model": 1}', '{"model": "lenet5"}', '{"model": "a:b"}', '{"model": "torchvision:x"}',
)  # fmt: skip


def conf_seeds() -> Iterator[bytes]:
    """The shipped .conf files, one with all that a search notes, and texts that break one rule each."""
    yield from (path.read_bytes() for path in (ROOT / "tune_prune" / "workflows" / "confs").glob("*.conf"))
    yield b'layer1.0.conv1,fc\n0.5,0.25\nmag,my_lab:fisher\n# model = "m"\n# history = [{trial = 1, "ratio/8" = 0.5}]\n'
    yield from (text.encode() for text in WRONG_CONFS)
    yield b"1\n0.5\n\xff"


def space_seeds() -> Iterator[bytes]:
    """The shipped spaces, those of docs/spaces.md, and the first of these with one value at a time replaced."""
    yield from (path.read_bytes() for path in (ROOT / "search_spaces").glob("*.toml"))
    documented = (ROOT / "docs" / "spaces.md").read_text(encoding="utf-8")
    whole, *parts = re.findall(r"```toml\n(.*?)```", documented, re.DOTALL)
    yield from (text.encode() for text in (whole, *parts))
    for line in re.findall(r"^.+ = .+$", whole, re.MULTILINE):
        key = line.partition(" = ")[0]
        yield from (whole.replace(line, f"{key} = {value}", 1).encode() for value in WRONG_VALUES)
        yield whole.replace(line, f"{key}x = 1", 1).encode()


def checkpoint_seeds() -> Iterator[bytes]:
    """Small safetensors files, whose header says one thing wrong each."""
    tensors = {"1.weight": torch.zeros(2, 3), "mask/1": torch.ones(2, 3, dtype=torch.bool)}
    yield b"\x08\0\0\0\0\0\0\0{}      "
    yield save(tensors)
    yield from (save(tensors, {"tune_prune": header}) for header in WRONG_HEADERS)
    yield checkpoint.dumps("lenet5", _small_model(), {}, {"trial": 1})


def sparse_seeds() -> Iterator[bytes]:
    """A small network in both forms, and that file with one part of its header or one tensor left out or damaged."""
    model = _small_model()
    for kept in (1, 7):  # as gaps and as bits
        mask = {label: _keep_first(weight, kept) for label, weight in masks.prunable(model).items()}
        yield sparse_format.dumps("lenet5", model, mask)
    facts = {"model": "lenet5", "shapes": {"w": [2, 4]}, "layers": {"w": "1"}}
    tensors = {"w.kept": torch.ones(3), "w.bits": torch.tensor([0b11100000], dtype=torch.uint8)}
    yield _sparse_file(facts, tensors)
    yield from (_sparse_file({key: facts[key] for key in facts if key != left_out}, tensors) for left_out in facts)
    yield from (_sparse_file(facts, {key: tensors[key] for key in tensors if key != left_out}) for left_out in tensors)
    yield from (_sparse_file(facts | {"shapes": {"w": shape}}, tensors) for shape in ([], [3], [-1, 2], "x", [1e4]))
    yield _sparse_file(facts | {"tied": {"v": "w"}}, tensors)
    yield _sparse_file(facts | {"tied": {"v": "u"}}, tensors)
    yield _sparse_file(facts, {"w.kept": torch.ones(1), "w.gaps": torch.tensor([255, 1], dtype=torch.uint8)})


def json_seeds() -> Iterator[bytes]:
    """Values of every kind, and texts at the bounds."""
    yield from (text.encode() for text in WRONG_JSON)
    yield from (b"[" * 32 + b"]" * 32, b"[" * 33 + b"]" * 33, b"9" * 40, b"9" * 41, b'{"' + b"k" * 1001 + b'": 1}')
    yield b'{"a": [1, -0.5e-3, "\\u00e9", null, true], "b": {"c": NaN, "d": Infinity}}'


def toml_seeds() -> Iterator[bytes]:
    """Those of spaces, and texts at the bounds."""
    yield from space_seeds()
    yield from (b"a" + b".a" * 15 + b" = 1", b"a" + b".a" * 16 + b" = 1", b'["a".b . c]\n[[d]]\nx = """a.b.c"""  # a.b')
    yield b"a = " + b"[" * 33 + b"]" * 33
    yield b"a = 1979-05-27T07:32:00Z\nb = 0xdead_beef\nc = inf\nd = {e.f = 1}\ng = 07:32:00"


def run_seeds() -> Iterator[bytes]:
    """A run.json, and that file with one value at a time replaced or left out."""
    with tempfile.TemporaryDirectory() as folder:
        run_directory.begin(Path(folder))
        yield from _vary(json.loads((Path(folder) / "run.json").read_text()))


def record_seeds() -> Iterator[bytes]:
    """The record of a trial, and that file with one value at a time replaced or left out, in it and in its points."""
    with tempfile.TemporaryDirectory() as folder:
        run_directory.search(Path(folder))
        whole = json.loads((Path(folder) / "results" / "1.json").read_text())
    yield from _vary(whole)
    for part in ("params", "points"):
        inner = whole[part] if part == "params" else whole[part][-1]
        for changed in _vary(inner):
            value = json.loads(changed)
            yield json.dumps(whole | {part: value if part == "params" else [*whole[part][:-1], value]}).encode()


def study_seeds() -> Iterator[bytes]:
    """Numbers of cells and values; the fuzzer finds the others."""
    source = random.Random(0)
    yield from (source.randbytes(64) for _ in range(64))


def cache_seeds() -> Iterator[bytes]:
    """A file of the cache, that of other values, and one without its hash."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        values = statistics_cache.load_or_measure(["hessian"], make_context())["hessian"]
        [path] = statistics_cache.cache_dir().iterdir()
        whole = path.read_bytes()
    yield whole
    yield whole[:-1] + bytes([whole[-1] ^ 1])
    yield whole[: len(whole) // 2]
    yield save({label: value.contiguous() for label, value in values.items()})


def make_context() -> Context:
    """A small network and its images, of which statistics are cached."""
    model, generator = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2)), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=generator))
    sample = Split(torch.rand(4, 3, generator=generator), torch.arange(4) % 2)
    return Context(model, sample, generator)


def _vary(whole: dict[str, object]) -> Iterator[bytes]:
    """An object, without each of its keys, and with each of its values replaced by one of every kind."""
    yield json.dumps(whole).encode()
    for key in whole:
        yield json.dumps({other: value for other, value in whole.items() if other != key}).encode()
        for wrong in WRONG_JSON:
            yield json.dumps(whole | {key: json.loads(wrong)}).encode()


def _small_model() -> nn.Module:
    torch.manual_seed(0)  # the same files every time
    return nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 2))


def _keep_first(weight: Tensor, count: int) -> Tensor:
    return (torch.arange(weight.numel()).reshape(weight.shape) < count).float()


def _sparse_file(facts: Mapping[str, object], tensors: dict[str, Tensor]) -> bytes:
    return save(tensors, {"tune_prune": json.dumps(facts)})


SEEDS = {
    "conf": conf_seeds,
    "space": space_seeds,
    "checkpoint": checkpoint_seeds,
    "sparse": sparse_seeds,
    "json": json_seeds,
    "toml": toml_seeds,
    "run": run_seeds,
    "record": record_seeds,
    "study": study_seeds,
    "cache": cache_seeds,
}


def write_seeds(reader: str, folder: Path) -> None:
    """Writes the seeds of a reader into a folder, which is made; other files in it stay."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(SEEDS[reader]()):
        (folder / f"seed-{number}").write_bytes(data)


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in SEEDS:
        sys.exit(__doc__)
    write_seeds(sys.argv[1], Path(sys.argv[2]))
