"""Files and command lines that are wrong in generated ways: one line, nothing raised but that, nothing written.

At least 2,000 of them: `python -m pytest tests/test_bad_input.py --hypothesis-show-statistics` counts.
"""

import io
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from toys import fault, mlp

from tune_prune.cli import main
from tune_prune.common.errors import UserError
from tune_prune.export import formats, sparse_format
from tune_prune.hpo import run_files, space_reader
from tune_prune.pruning import checkpoint, masks
from tune_prune.results import conf, records
from tune_prune.results.run_results import read_run
from tune_prune.tasks import task
from tune_prune.tasks.datasets import load_data
from tune_prune.tasks.splits import Data, Split

ROOT = Path(__file__).parent.parent
CONF = (ROOT / "tune_prune" / "workflows" / "confs" / "lenet5.conf").read_text()
SPACES = [path.read_text() for path in sorted((ROOT / "search_spaces").glob("*.toml"))]
BYTES = {
    "checkpoint": checkpoint.dumps("toys:mlp", mlp(), masks.dense_masks(mlp()), {"lr": 0.1}),
    "sparse": sparse_format.dumps("toys:mlp", mlp(), {k: v.fill_(0) for k, v in masks.dense_masks(mlp()).items()}),
}
TOKENS = [
    "",
    "0",
    "-1",
    "1e400",
    "nan",
    "0.5",
    "lenet5",
    '"',
    "[",
    "]",
    "{",
    "}",
    "=",
    "#",
    "\n",
    "\0",
    "é",
    "../x",
    "*",
]
many = settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def spoilt(draw: st.DrawFn, texts: list[str]) -> str:
    """A text with some of its words gone, doubled, or other ones."""
    words = draw(st.sampled_from(texts)).split(" ")
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(words) - 1))
        other = draw(st.sampled_from(TOKENS))
        words[at : at + 1] = draw(st.sampled_from([[""], words[at : at + 1] * 2, [other]]))
    return " ".join(words)


@st.composite
def spoilt_bytes(draw: st.DrawFn, whole: bytes) -> bytes:
    """A file cut off, with other bytes in it, or with more of them; most of them in its header."""
    found = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.one_of(st.integers(0, min(600, len(found) - 1)), st.integers(0, len(found) - 1)))
        kind = draw(st.sampled_from(["cut", "other", "more"]))
        if kind == "cut" and at:
            del found[at:]
        elif kind == "other":
            found[at] = draw(st.integers(0, 255))
        else:
            found[at:at] = draw(st.binary(min_size=1, max_size=9))
    return bytes(found)


def assert_nothing_written(folder: Path, file: Path) -> None:
    """Nothing else was written there."""
    assert [path.name for path in folder.iterdir()] == [file.name]


def one_line(error: UserError) -> None:
    assert str(error)
    assert len(str(error).splitlines()) == 1


@given(text=st.one_of(spoilt([CONF]), st.text(max_size=200)))
@many
def test_confs(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.conf"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        read = conf.read(path)
    except UserError as error:
        one_line(error)
    else:
        assert all(0 <= ratio < 1 for ratio in read.ratios.values())
    assert_nothing_written(tmp_path, path)


@given(text=st.one_of(spoilt(SPACES), st.text(max_size=200)))
@many
def test_spaces(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.toml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        space_reader.read(path)
    except UserError as error:
        one_line(error)
    assert_nothing_written(tmp_path, path)


@pytest.mark.parametrize("kind", BYTES)
@given(data=st.data())
@many
def test_checkpoints(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(data.draw(spoilt_bytes(BYTES[kind])))
    try:
        saved = checkpoint.read(path) if kind == "checkpoint" else sparse_format.read(path)
        checkpoint.check_trusted(path, "toys:mlp")  # before code is run that a file names
        checkpoint.restore(saved, str(path))
    except UserError as error:
        one_line(error)
    assert_nothing_written(tmp_path, path)


FLAGS = [flag for one in main.typer.main.get_command(main.app).commands["search"].params for flag in one.opts]
KNOWN = ["lenet5", "toy.toml", "tpe", "gp", "cpu", "cuda", "15m", "3"]
VALUES = st.one_of(st.sampled_from([*TOKENS, *KNOWN]), st.text(max_size=8))


@pytest.fixture(scope="module")
def few_images() -> Data:
    """The first images of MNIST: a dry run evaluates the dense model, and hundreds of the lines are right."""
    data = load_data("mnist")
    splits = (data.train, data.validation, data.load_test())
    train, validation, test = (Split(*(part[:100] for part in split)) for split in splits)
    return Data(train, validation, lambda: test, "mnist")


@given(words=st.lists(st.tuples(st.sampled_from([*FLAGS, "--nosuch", "-x"]), VALUES), max_size=5))
@many
def test_command_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few_images: Data, words: list[tuple[str, str]]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(task, "load_data", lambda name, *settings: {"mnist": few_images}[name])
    monkeypatch.setenv("TUNE_PRUNE_NO_CODE", "")
    given_ = [word for pair in words for word in pair if "--help" not in word]
    monkeypatch.setattr(sys, "argv", ["tune-prune", "search", *given_, "--dry-run"])
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code in (0, 2), err.getvalue()
    assert err.getvalue().count("\n") == (ended.value.code == 2), err.getvalue()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("bomb", ["[" * 100_000, "[" * 900 + "]" * 900, "9" * 5_000], ids=["open", "deep", "digits"])
def test_bombs_in_json(tmp_path: Path, bomb: str) -> None:
    (tmp_path / "space.toml").write_text(SPACES[0])
    (tmp_path / "a.safetensors").write_bytes(save({"x": torch.zeros(1)}, {"tune_prune": bomb, "pruning": bomb}))
    for name in ("run.json", "summary.json", "1.json"):
        (tmp_path / name).write_text(f'{{"format": 3, "space": "a", "trial": {bomb}}}' if "9" in bomb else bomb)
    fault(lambda: checkpoint.read(tmp_path / "a.safetensors"))
    fault(lambda: formats.load(tmp_path / "a.safetensors"))
    fault(lambda: records.read(tmp_path / "1.json"))
    fault(lambda: run_files.resume_run(tmp_path, {}, {}))
    fault(lambda: read_run(tmp_path))
    assert run_files.read_acc_tradeoff(tmp_path, space_reader.parse(SPACES[0], "a", "a")) == 0.5


@pytest.mark.parametrize(
    ("bomb", "said"),
    [
        (".".join("a" * 16_000) + " = 1", "not valid TOML: a dotted key has more than 16 parts"),
        ("a = " + "[" * 100_000, "not valid TOML: more than 32 lists or tables within each other"),
        ("a = " + "9" * 41, "not valid TOML: a number has more than 40 digits"),
        ("[goal]\nbudget = 0x" + "f" * 5_000, "not valid TOML: a number has more than 40 digits"),
    ],
    ids=["dots", "open", "digits", "hex"],
)
def test_bombs_in_toml(tmp_path: Path, bomb: str, said: str) -> None:
    (tmp_path / "a.toml").write_text(f"{SPACES[0].replace('[goal]', '[more]')}\n{bomb}\n")
    assert fault(lambda: space_reader.read(tmp_path / "a.toml")) == f"{tmp_path / 'a.toml'}: {said}"
    (tmp_path / "a.conf").write_text(f"1\n0.5\n# {bomb}\n# b = 1\n")
    assert conf.read(tmp_path / "a.conf").notes["b"] == 1
