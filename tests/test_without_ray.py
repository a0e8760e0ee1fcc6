"""Everything that prunes runs without Ray, Optuna and torchvision."""

import subprocess
import sys
from pathlib import Path

import tune_prune

SCRIPT = """
import sys
for name in ("ray", "optuna", "torchvision"):
    sys.modules[name] = None  # importing it raises ImportError
from pathlib import Path
import torch
from tune_prune.pruning import checkpoint
from tune_prune.pruning import masks
from tune_prune.pruning.iterative import initial_state
from tune_prune.pruning.iterative import prune
from tune_prune.pruning.plan import Plan
from tune_prune.tasks.metrics import evaluate
from tune_prune.tasks.models import build
from tune_prune.tasks.splits import Split























































torch.set_num_threads(1)
torch.manual_seed(0)
images = Split(torch.randint(256, (64, 1, 28, 28)).to(torch.uint8), torch.arange(64) % 10)
state = initial_state(build("lenet_300_100"))
plan = Plan({"2": 0.9, "6": 0.5}, {"2": "taylor1", "6": "mag"}, rounds=2, steps=2, final_steps=3)
points = list(prune(state, plan, images, images, seed=1))
path = Path(sys.argv[1])
checkpoint.write(path, "lenet_300_100", state.model, state.masks)
model, kept = checkpoint.restore(checkpoint.read(path), str(path))
assert evaluate(model, images) == (points[-1].metric, points[-1].loss)
print(masks.compression(kept))
"""


def test_a_model_is_pruned_retrained_saved_and_loaded(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", SCRIPT, str(tmp_path / "a.safetensors")]
    root = Path(tune_prune.__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == (211_680 + 500) / 266_200
