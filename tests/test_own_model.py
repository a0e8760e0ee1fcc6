"""A user's own residual network, whose layers are named in groups, and images, in files outside the package."""

import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
from searches import Trials, searched, summary_of

ROOT = Path(__file__).parent.parent
IMAGES = """
import torch

def images():
    source = torch.Generator().manual_seed(0)
    kinds = torch.rand(10, 3, 8, 8, generator=source)

    def split(n):
        labels = torch.arange(n) % 10
        noisy = kinds[labels] * 160 + torch.rand(n, 3, 8, 8, generator=source) * 90
        return noisy.to(torch.uint8), labels

    return split(100), split(50), split(50)
"""
SPACE = """
[task]
model = "resnet20:resnet20"
data = "my_images:images"

[space]
exclude = ["conv1", "fc"]
rounds = 2
steps = 4
final_steps = 8
lr = {low = 0.02, high = 0.1, log = true}

[space.ratio]
"layer1.*" = {low = 0.3, high = 0.9, group = true}
"layer2.*" = {low = 0.3, high = 0.9, group = true}
"layer3.*" = {low = 0.5, high = 0.97, group = true}

[goal]
acc_tradeoff = 5
"""


def test_a_residual_network_by_names_in_groups(trials: Trials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(ROOT / "experiments" / "resnet20" / "resnet20.py", tmp_path)
    (tmp_path / "my_images.py").write_text(IMAGES)
    (tmp_path / "mine.toml").write_text(SPACE)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("resnet20", None)  # that of another test
    code, run_dir = searched(tmp_path / "mine.toml", budget=4)
    del sys.modules["resnet20"]
    assert code in (0, 3)
    assert trials.started == summary_of(run_dir)["trials"]["completed"] == 4
    points = pd.read_csv(run_dir / "points.csv")
    ratios = points[[column for column in points if column.startswith("ratio/layer")]]
    assert len(ratios.columns) == 18
    assert (points[["ratio/conv1", "ratio/fc"]] == 0).all(axis=None)
    for layer in ("layer1", "layer2", "layer3"):
        group = ratios[[column for column in ratios if column.startswith(f"ratio/{layer}.")]]
        # a warm-started round states counts of whole weights, which layers of two sizes round differently
        assert (group.max(axis=1) - group.min(axis=1) < 1e-3).all()
    assert (points["compression"] > 0.1).all()
