"""A user's own network and images, in files outside the package, from another working directory."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).parent.parent
IMAGES = """
import torch

def images():
    source = torch.Generator().manual_seed(0)
    kinds = torch.rand(10, 3, 16, 16, generator=source)

    def split(n):
        labels = torch.arange(n) % 10
        noisy = kinds[labels] * 160 + torch.rand(n, 3, 16, 16, generator=source) * 90
        return noisy.to(torch.uint8), labels

    return split(400), split(100), split(100)
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


def test_a_residual_network_by_names_in_groups(tmp_path: Path) -> None:
    shutil.copy(ROOT / "experiments" / "resnet20" / "resnet20.py", tmp_path)
    (tmp_path / "my_images.py").write_text(IMAGES)
    (tmp_path / "mine.toml").write_text(SPACE)
    words = "search --force --space mine.toml --budget 4 --max-concurrent 1 --run-dir run --json"
    command = [sys.executable, "-m", "tune_prune", *words.split()]
    env = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    ended = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert ended.returncode in (0, 3), ended.stderr
    summary = json.loads(ended.stdout)
    assert summary["trials"]["completed"] == 4
    points = pd.read_csv(tmp_path / "run" / "points.csv")
    ratios = points[[column for column in points if column.startswith("ratio/layer")]]
    assert len(ratios.columns) == 18
    assert (points[["ratio/conv1", "ratio/fc"]] == 0).all(axis=None)
    for layer in ("layer1", "layer2", "layer3"):
        group = ratios[[column for column in ratios if column.startswith(f"ratio/{layer}.")]]
        # a warm-started round states counts of whole weights, which layers of two sizes round differently
        assert (group.max(axis=1) - group.min(axis=1) < 1e-3).all()
    assert (points["compression"] > 0.1).all()
