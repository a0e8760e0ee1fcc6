"""What the documents say holds: links lead somewhere, and spaces, commands, names, files and columns exist."""

import ast
import importlib
import json
import re
import runpy
import sys
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import fenced_blocks
import pytest
import searches
import test_extending
import test_tasks_document
from fenced_blocks import Block
from toys import images, mlp
from typer.main import get_command

from tune_prune.cli import main
from tune_prune.hpo import space_reader
from tune_prune.pruning.plan import Plan
from tune_prune.results import sensitivity_table
from tune_prune.workflows.prune_outputs import points_csv

ROOT = Path(__file__).parent.parent
LEFT_OUT = {".venv", "build", "runs", "node_modules"}
DOCUMENTS = sorted(path for path in ROOT.rglob("*.md") if not LEFT_OUT & set(path.relative_to(ROOT).parts))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text(encoding="utf-8"))
    dead = [link for link in links if "://" not in link and not (path.parent / link).exists()]
    assert dead == []


TASK = '[task]\nmodel = "lenet5"\ndata = "mnist"\n'
RATIO = '[space]\n[space.ratio]\n"*" = 0.5\n'


@pytest.mark.parametrize("block", fenced_blocks.BLOCKS, ids=str)
def test_a_block_runs_in_a_test_or_says_why_not(block: Block) -> None:
    kind, _, rest = block.note.partition(": ")
    if kind == "test":
        module, _, function = rest.partition("::")
        tree = ast.parse((ROOT / "tests" / f"{module}.py").read_text(encoding="utf-8"))
        found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function]
        assert "blocks" in [argument.arg for node in found for argument in node.args.args]
    elif kind == "not run":
        assert len(rest.split()) > 2
    elif kind.startswith("part of "):
        whole = (ROOT / kind.removeprefix("part of ")).read_text(encoding="utf-8").splitlines()
        assert set(block.text.splitlines()) <= {*whole}
    elif kind == "recipe":
        names = [name for name, text in {**test_tasks_document.RECIPES, **test_extending.RECIPES}.items()
                 if text == block.text]  # fmt: skip
        tests = Path(test_tasks_document.__file__).read_text() + Path(test_extending.__file__).read_text()
        assert len(names) == 1
        assert f'"{names[0]}"' in tests.partition("RECIPES")[2]
    elif kind == "test line":
        assert block.document == "README.md"  # CI runs it
    else:
        assert (block.language, kind) == ("toml", ""), "it needs a comment: see tests/fenced_blocks.py"
        needed = "" if "[space.ratio]" in block.text else RATIO if "[space]" not in block.text else RATIO[8:]
        text = block.text if "[task]" in block.text else TASK + block.text
        named = text if "model =" in text else text.replace("[task]\n", TASK)
        space_reader.parse(named + needed, "part", str(block))


def test_the_list_of_documents_is_complete() -> None:
    listed = set(re.findall(r"\]\((\w[\w-]*\.md)\)", (ROOT / "docs" / "README.md").read_text(encoding="utf-8")))
    assert listed == {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_and_flags_are_there(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    commands = get_command(main.app).commands  # type: ignore[attr-defined]
    for line in re.findall(r"^(?:.*&& )?\S*(?:tune-prune|python launch\.py)\b.*$", text, re.MULTILINE):
        words = line.split("#")[0].split("`")[0].split()
        if not any(word.endswith(("tune-prune", "launch.py")) for word in words[:-1]):
            continue  # a sentence about it
        start = next(i for i, word in enumerate(words) if word.endswith(("tune-prune", "launch.py")))
        name = "search" if words[start].endswith("launch.py") else words[start + 1]
        assert name in commands, line
        flags = {flag for parameter in commands[name].params for flag in parameter.opts}
        assert {word for word in words[start + 1 :] if re.match(r"--?[a-z]", word)} <= flags, line


def test_the_readmes_own_model_runs_as_printed(
    trials: searches.Trials,
    command: Callable[..., object],
    blocks: list[Block],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """But for its budget."""
    mine, python, shell = blocks
    (tmp_path / "my.py").write_text(mine.text)
    assert len([line for line in (mine.text + python.text).splitlines() if line]) == 10
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("my", None)  # that of another test
    assert "budget=20" in python.text
    (tmp_path / "printed.py").write_text(python.text.replace("budget=20", "budget=2, steps=5, refine=0"))
    front = runpy.run_path("printed.py")["front"]
    assert front.summary["trials"]["completed"] + front.summary["trials"]["stopped"] == 2
    assert front.summary["metric"] == {"name": "rmse", "better": "lower"}
    del sys.modules["my"]
    (_, *words) = shell.commands[0]
    assert words[-2:] == ["--budget", "20"]
    assert command(*words[:-1], 2, "--run-dir", "again") in (0, 3)
    del sys.modules["my"]
    assert searches.summary_of(tmp_path / "again")["metric"] == {"name": "rmse", "better": "lower"}


def test_the_documented_files_of_a_model_run_as_printed(
    command: Callable[..., object],
    trials: searches.Trials,
    blocks: list[Block],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code, space, shell = blocks
    (tmp_path / "mine.py").write_text(code.text)
    (tmp_path / "mine.toml").write_text(space.text)
    assert sum(block.text.count("\n") for block in blocks) <= 30
    (_, *train), (_, *search) = shell.commands
    monkeypatch.chdir(tmp_path)
    sys.modules.pop("mine", None)  # that of another test
    assert command(*train) == 0
    assert command(*search) == 0
    del sys.modules["mine"]
    assert trials.started == 8
    summaries = [json.loads(path.read_text()) for path in tmp_path.glob("runs/mine-*/summary.json")]
    assert [summary["trials"]["completed"] + summary["trials"]["stopped"] for summary in summaries] == [8]


def test_objects_are_searched_as_documented(
    trials: searches.Trials, blocks: list[Block], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for the budget; the toys are not trained. A later block goes on where an earlier one has ended."""
    monkeypatch.chdir(tmp_path)
    parts = images()
    known: dict[str, object] = {"model": mlp(), "Net": mlp}
    for name, split in {"train": parts.train, "validation": parts.validation, "test": parts.load_test()}.items():
        known[name] = split.inputs, split.labels
    assert "budget=50" in blocks[0].text
    for block in blocks:
        code = block.text.replace("budget=50", "budget=2, steps=2, refine=0, force=True").replace("=0.5", "=50")
        for run_dir in Path("runs").glob("*"):
            code = re.sub(r'"runs/[\w-]+"', f'"{run_dir}"', code)
        Path("printed.py").write_text(code)
        known |= runpy.run_path("printed.py", known)
    zeros = [(known[name].state_dict()["1.weight"] == 0).sum() for name in ("smaller", "zeroed")]  # type: ignore[attr-defined]
    assert zeros[0] == zeros[1] > 0


def test_the_documented_space_is_right(blocks: list[Block]) -> None:
    (whole,) = blocks
    found = space_reader.parse(whole.text, "documented", str(whole))
    assert (found.model, found.acc_tradeoff, found.features.warm_start) == ("lenet5", 0.5, True)


def test_the_documented_conf_prunes(
    few_images: None,
    command: Callable[..., object],
    blocks: list[Block],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (block,) = blocks
    (tmp_path / "documented.conf").write_text(block.text)
    assert command("prune", "--conf", tmp_path / "documented.conf", "--out", tmp_path / "pruned", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert f"# compression = {summary['compression']}\n" in block.text


def test_every_key_of_a_space_is_documented() -> None:
    text, table = ((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("spaces.md", "space-keys.md"))
    named = set(re.findall(r"`(\w+)`|^(?:# )?(\w+) = |\.(\w+)\]", text, re.MULTILINE))
    words = {word for groups in named for word in groups}
    for name, keys in space_reader.KEYS.items():
        assert f"## [{name}]" in text
        assert all(f"| `{name}.{key}` |" in table for key in keys)
        assert name == "space" or set(keys) <= words


def test_the_documented_pruner_prunes(
    command: Callable[..., object],
    blocks: list[Block],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, shell = blocks
    (tmp_path / "my_lab.py").write_text(code.text)
    assert code.text.count("\n") <= 10
    monkeypatch.chdir(tmp_path)
    sys.modules.pop("my_lab", None)  # that of another test
    assert command(*shell.commands[0][1:], "--json") == 0
    del sys.modules["my_lab"]
    assert json.loads(capsys.readouterr().out)["layers"]["2"] == {"total": 235_200, "kept": 23_520}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 1200


def test_ci_runs_the_readmes_test_line() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"<!-- test line -->\n```\n(.*)\n```", text)
    assert len(lines) == 1
    assert "<!-- test line -->" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted((ROOT / "search_spaces").glob("*.toml")), ids=lambda path: path.stem)
def test_every_space_that_comes_along_is_right(path: Path) -> None:
    assert space_reader.read(path).name == path.stem


PACKAGES = "common|tasks|training|pruning|export|results|hpo|distributed|workflows|cli"


@pytest.mark.parametrize("name", ["architecture.md", "extending.md"])
def test_names_of_the_code_exist(name: str) -> None:
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    dotted = set(re.findall(rf"`((?:{PACKAGES})\.[\w.]+)`", text))
    files = set(re.findall(r"`((?:tune_prune|tests|search_spaces)/[\w./]+\.\w+)`", text))
    assert files
    assert [file for file in sorted(files) if not (ROOT / file).is_file()] == []
    assert [one for one in sorted(dotted) if not exists(f"tune_prune.{one}")] == []


def exists(name: str) -> bool:
    """Whether there is a module, or a function, class or value in one, or in a class, of this dotted name."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[end:]:
            if not hasattr(found, attribute):
                return False
            found = getattr(found, attribute)
        return True
    return False


# The run directory


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search of a toy."""
    toml = tmp_path_factory.mktemp("documented") / "space.toml"
    toml.write_text(searches.SPACE)
    with searches.without_ray():
        code, found = searches.searched(toml, seed=1)
    assert code == 0
    return found


def documented(section: str) -> set[str]:
    """The names in the first column of the tables of a section of docs/run-directory.md."""
    text = (ROOT / "docs" / "run-directory.md").read_text(encoding="utf-8")
    part = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return {name for cell in re.findall(r"^\| (`.*?) \|", part, re.MULTILINE) for name in re.findall(r"`(.+?)`", cell)}


def keys_of(value: object) -> Iterator[str]:
    """The keys of nested objects, but for labels of layers."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            if key not in ("layers", "params", "pruners", "ratios", "costs", "front", "points"):
                yield from keys_of(item)


def test_every_file_of_a_run_is_documented(run_dir: Path) -> None:
    patterns = [re.sub(r"<\w+>", "*", name) + ("*" if name.endswith("/") else "") for name in documented("Files")]
    there = [str(path.relative_to(run_dir)) for path in run_dir.rglob("*") if path.is_file()]
    assert len(there) > 20
    assert [name for name in there if not any(fnmatchcase(name, pattern) for pattern in patterns)] == []


@pytest.mark.parametrize("name", ["points.csv", "trials.csv", "pareto.csv"])
def test_every_column_is_documented(run_dir: Path, name: str) -> None:
    columns = (run_dir / name).read_text(encoding="utf-8").splitlines()[0].split(",")
    general = {re.sub(r"^(ratio|pruner)/.+", r"\1/<layer>", column) for column in columns}
    assert general - documented(name) == set()


def test_every_column_of_other_commands_is_documented() -> None:
    assert {*sensitivity_table.KEY, *sensitivity_table.list_measured()} - documented("sensitivity.csv") == set()
    header = points_csv(Plan({"2": 0.5}, {"2": "mag"}), []).strip().replace("ratio/2", "ratio/<layer>")
    assert set(header.split(",")) - documented("The folder of `tune-prune prune`") == set()


def test_every_key_is_documented(run_dir: Path) -> None:
    summary = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
    text = (ROOT / "docs" / "run-directory.md").read_text(encoding="utf-8")
    section = text.partition("\n## summary.json\n")[2].partition("\n## ")[0]
    assert summary.keys() - documented("summary.json") == set()
    assert {key for key in keys_of(summary) if f"`{key}`" not in section} == set()
    assert {key for member in summary["front"] for key in member} - documented("pareto.csv") == set()
    record = json.loads((run_dir / "results" / "0.json").read_text(encoding="utf-8"))
    inside = {key for point in record["points"] for key in keys_of(point)}
    assert ({*keys_of(record)} | inside) - documented("results/N.json") == set()
    assert {cost for point in record["points"] for cost in point["costs"]} <= documented("points.csv")
    settings = json.loads((run_dir / "run.json").read_text(encoding="utf-8"))
    section = text.partition("\n## run.json\n")[2].partition("\n## ")[0]
    assert {key for key in settings if f"`{key}`" not in section} == set()
