"""Makes `tune-prune prune` resumable: after every step its state is written, and `--resume` continues from there."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save
from torch import nn

from tune_prune.common import files
from tune_prune.common.errors import UserError
from tune_prune.pruning import checkpoint, criteria
from tune_prune.pruning.iterative import Point, State
from tune_prune.pruning.layerwise import PruneStep
from tune_prune.pruning.plan import Plan
from tune_prune.results.conf import Conf
from tune_prune.tasks.fingerprints import check_unchanged, fingerprint_task
from tune_prune.tasks.models import load_state
from tune_prune.tasks.settings import DEFAULT, TaskSettings
from tune_prune.tasks.splits import Data
from tune_prune.workflows import prune
from tune_prune.workflows.prune_target import PruneOptions

STATE_FILE = "prune.resume"
"""The state's file in the output folder; it is removed once the other files are written."""


@dataclass(frozen=True)
class PruneRequest:
    """Everything that defines a pruning; one that was cut off is resumed only by an equal request."""

    model: str
    data: str
    start: Path | None
    target: Conf
    options: PruneOptions
    settings: TaskSettings = DEFAULT

    def to_json(self) -> dict[str, Any]:
        """The request in the types of JSON."""
        values = {
            "model": self.model, "data": self.data, "checkpoint": self.start and str(self.start),
            "ratios": self.target.ratios, "pruners": self.target.pruners,
        }  # fmt: skip
        converted: dict[str, Any] = json.loads(json.dumps(values | asdict(self.options)))
        return converted


class PruneResult(NamedTuple):
    """A pruning that has ended: its final state, its plan, all steps, and the hash of the weights that it started from.

    The hash is that of `checkpoint.hash_weights`.
    """

    state: State
    plan: Plan
    steps: list[PruneStep]
    weights_hash: str


def prune_resumable(
    out: Path,
    request: PruneRequest,
    data: Data,
    device: torch.device,
    source: str,
    resume: bool,
    on_step: Callable[[PruneStep], None],
) -> PruneResult:
    """Prunes one model, and writes the state into `out` after every step.

    With `resume` it continues the pruning that was cut off in `out`: a `UserError` where there is none, where the
    request was another, or where the file is damaged. `on_step` is called with each step of this call.
    """
    steps: list[PruneStep] = []
    begun = request.to_json()

    def add_contents(model: nn.Module) -> None:
        splits = {"training": data.train, "validation": data.validation}
        begun.update(fingerprint_task(request.model, model, model.state_dict(), splits, request.settings))
        pruners = (request.target.pruners or {"": request.options.pruner}).values()
        begun.update({f"code of {name}": code for name, code in criteria.hash_pruners(pruners).items()})

    def load_progress(model: nn.Module) -> tuple[State, list[PruneStep]]:
        add_contents(model)
        state, done = _load_state(out, begun, model)
        steps.extend(done)
        return state, done

    state, plan, remaining = prune.prune(
        request.model,
        request.start,
        data,
        request.target,
        request.options,
        device,
        source,
        load_progress if resume else None,
    )
    weights_hash = checkpoint.hash_weights(state.model, state.masks)  # the first step has not run yet
    if not resume:
        add_contents(state.model)  # no step has run yet
    for step in remaining:
        steps.append(step)
        _save_state(out, begun, state, steps)
        on_step(step)
    return PruneResult(state, plan, steps, weights_hash)


def _save_state(out: Path, begun: Mapping[str, Any], state: State, steps: Sequence[PruneStep]) -> None:
    """Writes the state of a pruning, whole or not at all."""
    tensors = {f"model/{key}": value for key, value in state.model.state_dict().items()}
    tensors |= {f"mask/{label}": mask for label, mask in state.masks.items()}
    header = {"begun": begun, "rounds_done": state.rounds_done, "found": [asdict(step) for step in steps]}
    out.mkdir(parents=True, exist_ok=True)
    # cloned, since safetensors refuses tensors that share memory, as tied weights do
    saved = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    files.write_bytes(out / STATE_FILE, save(saved, {"pruning": json.dumps(header)}))


def _load_state(out: Path, begun: Mapping[str, Any], model: nn.Module) -> tuple[State, list[PruneStep]]:
    """Reads the state of a pruning that was cut off into `model`, and the steps done."""
    path = out / STATE_FILE
    if not path.is_file():
        raise UserError(f"--resume: {path} is not there; a pruning that has ended leaves none, and none was cut off")
    header, tensors = checkpoint.read_tensors(path, "pruning")
    try:
        steps = [PruneStep(Point(**fields.pop("point")), **fields) for fields in header["found"]]
        device = next(model.parameters()).device
        masks = {
            key.removeprefix("mask/"): value.to(device) for key, value in tensors.items() if key.startswith("mask/")
        }
        rounds_done = int(header["rounds_done"])
        check_unchanged(header["begun"], begun, f"--resume: {path}", "give the same flags, data and code as then")
        weights = {key.removeprefix("model/"): value for key, value in tensors.items() if key.startswith("model/")}
        load_state(model, weights)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--resume: {path} is damaged ({reason}); prune again without --resume") from error
    return State(model, masks, rounds_done), steps


def remove_state(out: Path) -> None:
    """Removes the state of a pruning that has ended."""
    (out / STATE_FILE).unlink(missing_ok=True)
