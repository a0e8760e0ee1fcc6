import json
from pathlib import Path

import pytest
import torch
from toys import Conv, fault, images, seeded

from tune_prune.pruning import checkpoint, masks
from tune_prune.pruning.iterative import State
from tune_prune.pruning.layerwise import PruneStep
from tune_prune.results.conf import Conf
from tune_prune.training.loop import fit
from tune_prune.training.optim import Recipe
from tune_prune.workflows import prune_resume
from tune_prune.workflows.prune import PruneOptions
from tune_prune.workflows.prune_resume import STATE_FILE, PruneRequest

CPU = torch.device("cpu")
WANTED = Conf({"features.4": 0.9, "head": 0.6}, {"features.4": "mag", "head": "random"})
WAYS = {
    "rounds": PruneOptions(iterations=4, epochs=1.0, distill=0.5),
    "reload": PruneOptions(iterations=4, epochs=0.5, reload=True),
    "layers": PruneOptions(iterations=3, epochs=0.5, acc_tradeoff=1.0),
    "epochs": PruneOptions(iterations=2, epochs=0.5, l2=1e-3),
}


class CutError(Exception):
    """What cuts a pruning off."""


def prune(out: Path, settings: PruneOptions, resume: bool = False, cut: int = -1) -> tuple[State, list[PruneStep], int]:
    """Prune, and be cut off after so many points; the state, all points, and how many were measured by this call."""
    torch.manual_seed(0)
    measured: list[PruneStep] = []

    def on_point(reached: PruneStep) -> None:
        measured.append(reached)
        if len(measured) == cut:
            raise CutError

    begun = PruneRequest("toys:Conv", "toys:images", None, WANTED, settings)
    state, _, found = prune_resume.prune_resumable(out, begun, images(), CPU, "here", resume, on_point)
    return state, found, len(measured)


def timeless(found: list[PruneStep]) -> list[object]:
    """Points without times."""
    return [(each.layer, each.reverted, each.point.ratios, each.point.error, each.point.loss) for each in found]


@pytest.mark.parametrize("way", list(WAYS))
@pytest.mark.parametrize("cut", [1, 2])
def test_it_goes_on_as_if_it_had_not_been_cut_off(tmp_path: Path, way: str, cut: int) -> None:
    state, found, _ = prune(tmp_path / "whole", WAYS[way])
    out = tmp_path / "cut"
    with pytest.raises(CutError):
        prune(out, WAYS[way], cut=cut)
    again, both, measured = prune(out, WAYS[way], resume=True)
    assert timeless(both) == timeless(found)
    assert measured == len(found) - cut  # what is measured is not measured again
    assert masks.compression(again.masks) == masks.compression(state.masks) > 0
    for key, value in state.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[key], value), key


def test_a_step_that_was_taken_back_is_not_tried_again(tmp_path: Path) -> None:
    never = PruneOptions(iterations=2, acc_tradeoff=0.0, pruner="random")
    wanted, start = Conf({"features.4": 0.99, "head": 0.98}, None), tmp_path / "start.safetensors"
    model = Conv()
    fit(model, images().train, Recipe(60, 0.1, batch_size=32), seeded(0))
    checkpoint.write(start, "toys:Conv", model, {})
    begun = PruneRequest("toys:Conv", "toys:images", start, wanted, never)
    measured: list[PruneStep] = []

    def on_point(reached: PruneStep) -> None:
        measured.append(reached)
        if reached.reverted and not any(each.reverted for each in measured[:-1]):
            raise CutError

    with pytest.raises(CutError):
        prune_resume.prune_resumable(tmp_path, begun, images(), CPU, "here", False, on_point)
    gone = measured[-1].layer
    _, _, found = prune_resume.prune_resumable(tmp_path, begun, images(), CPU, "here", True, measured.append)
    assert [each.layer for each in found].count(gone) == [each.layer for each in measured].count(gone)


def test_what_cannot_be_gone_on_with(tmp_path: Path) -> None:
    path, settings = tmp_path / STATE_FILE, WAYS["rounds"]
    assert fault(lambda: prune(tmp_path, settings, resume=True)).startswith(f"--resume: {path} is not there")
    with pytest.raises(CutError):
        prune(tmp_path, settings, cut=1)
    other = fault(lambda: prune(tmp_path, WAYS["reload"], resume=True))
    assert other == f"--resume: {path} was begun with another epochs; give the same flags as then"
    whole = path.read_bytes()
    for damaged in (b"", b"noise", whole[: len(whole) // 2], whole.replace(b"rounds_done", b"rounds_gone")):
        path.write_bytes(damaged)
        assert str(path) in fault(lambda: prune(tmp_path, settings, resume=True))


def test_the_command(command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--model", "toys:mlp", "--data", "toys:images", "-l", 2, "-p", 0.9, "--out", tmp_path / "out")
    assert command("prune", *flags, "--iterations", 3, "--resume") == 2
    capsys.readouterr()
    assert command("prune", *flags, "--iterations", 3, "--json") == 0
    json.loads(capsys.readouterr().out)
    assert not (tmp_path / "out" / STATE_FILE).exists()
