"""`tune-prune prune` writes after every point how far it has come, and goes on from there where it was cut off."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from tune_prune.common import files
from tune_prune.common.errors import UserError
from tune_prune.pruning import checkpoint
from tune_prune.pruning.iterative import Point, State
from tune_prune.pruning.layerwise import PruneStep
from tune_prune.pruning.plan import Plan
from tune_prune.results.conf import Conf
from tune_prune.tasks.splits import Data
from tune_prune.workflows import prune
from tune_prune.workflows.prune import PruneOptions

STATE_FILE = "prune.resume"
"""Its name in the folder that is written to; it is gone once the other files are there."""


@dataclass(frozen=True)
class PruneRequest:
    """What defines a pruning: it is gone on with as it was begun."""

    model: str
    data: str
    start: Path | None
    wanted: Conf
    settings: PruneOptions

    def described(self) -> dict[str, Any]:
        """As JSON has it."""
        whole = {
            "model": self.model, "data": self.data, "checkpoint": self.start and str(self.start),
            "ratios": self.wanted.ratios, "pruners": self.wanted.pruners,
        }  # fmt: skip
        described: dict[str, Any] = json.loads(json.dumps(whole | asdict(self.settings)))
        return described


def prune_resumable(
    out: Path,
    begun: PruneRequest,
    data: Data,
    device: torch.device,
    source: str,
    resume: bool,
    on_point: Callable[[PruneStep], None],
) -> tuple[State, Plan, list[PruneStep]]:
    """Prune as it was begun, or go on with that; what it came to, how, and by which points.

    With `resume`, a `UserError` where none was cut off in `out`, where that was begun otherwise, or is damaged.
    """
    found: list[PruneStep] = []

    def onward(model: nn.Module) -> tuple[State, list[PruneStep]]:
        state, done = _load_state(out, begun, model)
        found.extend(done)
        return state, done

    state, plan, points = prune.prune(
        begun.model, begun.start, data, begun.wanted, begun.settings, device, source, onward if resume else None
    )
    for reached in points:
        found.append(reached)
        _save_state(out, begun, state, found)
        on_point(reached)
    return state, plan, found


def _save_state(out: Path, begun: PruneRequest, state: State, found: Sequence[PruneStep]) -> None:
    """Write how far a pruning has come, whole or not at all."""
    tensors = {f"model/{key}": value for key, value in state.model.state_dict().items()}
    tensors |= {f"mask/{label}": mask for label, mask in state.masks.items()}
    header = {"begun": begun.described(), "rounds_done": state.rounds_done, "found": [asdict(each) for each in found]}
    out.mkdir(parents=True, exist_ok=True)
    # cloned, since safetensors refuses tensors that share memory, as tied weights do
    whole = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    files.write_bytes(out / STATE_FILE, save(whole, {"pruning": json.dumps(header)}))


def _load_state(out: Path, begun: PruneRequest, model: nn.Module) -> tuple[State, list[PruneStep]]:
    """How far a pruning had come: a state around `model`, and its points."""
    path = out / STATE_FILE
    if not path.is_file():
        raise UserError(f"--resume: {path} is not there; a pruning that has ended leaves none, and none was cut off")
    header, tensors = checkpoint.read_tensors(path, "pruning")
    try:
        different = [key for key, value in begun.described().items() if header["begun"].get(key) != value]
        found = [PruneStep(Point(**each.pop("point")), **each) for each in header["found"]]
        on = next(model.parameters()).device
        masks = {key.removeprefix("mask/"): value.to(on) for key, value in tensors.items() if key.startswith("mask/")}
        done = int(header["rounds_done"])
        if different:
            raise UserError(f"--resume: {path} was begun with another {different[0]}; give the same flags as then")
        model.load_state_dict(
            {key.removeprefix("model/"): value for key, value in tensors.items() if key.startswith("model/")}
        )
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        said = " ".join(str(error).split())
        raise UserError(f"--resume: {path} is damaged ({said}); prune again without --resume") from error
    return State(model, masks, done), found


def remove_state(out: Path) -> None:
    """A pruning has ended: there is nothing to go on from."""
    (out / STATE_FILE).unlink(missing_ok=True)
