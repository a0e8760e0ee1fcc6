import json
import sys
from pathlib import Path

import pytest
import torch
from toys import Conv, fault, images, seeded

from tune_prune.pruning import checkpoint, masks
from tune_prune.pruning.iterative import State
from tune_prune.pruning.layerwise import PruneStep
from tune_prune.results.conf import Conf
from tune_prune.tasks.splits import Data, Split
from tune_prune.training.loop import fit
from tune_prune.training.optim import Recipe
from tune_prune.workflows import prune_resume
from tune_prune.workflows.prune import open_model
from tune_prune.workflows.prune_resume import STATE_FILE, PruneRequest
from tune_prune.workflows.prune_target import PruneOptions

CPU = torch.device("cpu")
TARGET = Conf({"features.4": 0.9, "head": 0.6}, {"features.4": "mag", "head": "random"})
OPTIONS = {
    "rounds": PruneOptions(force=True, iterations=4, epochs=1.0, distill=0.5),
    "reload": PruneOptions(force=True, iterations=4, epochs=0.5, reload=True),
    "layers": PruneOptions(force=True, iterations=3, epochs=0.5, acc_tradeoff=1.0),
    "epochs": PruneOptions(force=True, iterations=2, epochs=0.5, l2=1e-3),
}


class CutError(Exception):
    """Cuts a pruning off."""


def prune(out: Path, options: PruneOptions, resume: bool = False, cut: int = -1) -> tuple[State, list[PruneStep], int]:
    """Prunes, cut off after so many steps; the state, all steps, and how many of them this call measured."""
    torch.manual_seed(0)
    measured: list[PruneStep] = []

    def on_step(step: PruneStep) -> None:
        measured.append(step)
        if len(measured) == cut:
            raise CutError

    request = PruneRequest("toys:Conv", "toys:images", None, TARGET, options)
    result = prune_resume.prune_resumable(out, request, images(), CPU, "here", resume, on_step)
    assert result.weights_hash == checkpoint.hash_weights(*open_model("toys:Conv", None))
    return result.state, result.steps, len(measured)


def timeless(steps: list[PruneStep]) -> list[object]:
    """Steps without times."""
    return [(step.layer, step.reverted, step.point.ratios, step.point.metric, step.point.loss) for step in steps]


@pytest.mark.parametrize("kind", list(OPTIONS))
@pytest.mark.parametrize("cut", [1, 2])
def test_it_resumes_as_if_it_had_not_been_cut_off(tmp_path: Path, kind: str, cut: int) -> None:
    state, steps, _ = prune(tmp_path / "whole", OPTIONS[kind])
    out = tmp_path / "cut"
    with pytest.raises(CutError):
        prune(out, OPTIONS[kind], cut=cut)
    again, both, measured = prune(out, OPTIONS[kind], resume=True)
    assert timeless(both) == timeless(steps)
    assert measured == len(steps) - cut  # what is measured is not measured again
    assert masks.compression(again.masks) == masks.compression(state.masks) > 0
    for key, value in state.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[key], value), key


def test_a_step_that_was_taken_back_is_not_tried_again(tmp_path: Path) -> None:
    never = PruneOptions(force=True, iterations=2, acc_tradeoff=0.0, pruner="random")
    target, start = Conf({"features.4": 0.99, "head": 0.98}, None), tmp_path / "start.safetensors"
    model = Conv()
    fit(model, images().train, Recipe(60, 0.1, batch_size=32), seeded(0))
    checkpoint.write(start, "toys:Conv", model, {})
    request = PruneRequest("toys:Conv", "toys:images", start, target, never)
    measured: list[PruneStep] = []

    def on_step(step: PruneStep) -> None:
        measured.append(step)
        if step.reverted and not any(earlier.reverted for earlier in measured[:-1]):
            raise CutError

    with pytest.raises(CutError):
        prune_resume.prune_resumable(tmp_path, request, images(), CPU, "here", False, on_step)
    layer = measured[-1].layer
    result = prune_resume.prune_resumable(tmp_path, request, images(), CPU, "here", True, measured.append)
    assert [step.layer for step in result.steps].count(layer) == [step.layer for step in measured].count(layer)


def test_what_cannot_be_resumed(tmp_path: Path) -> None:
    path, options = tmp_path / STATE_FILE, OPTIONS["rounds"]
    assert fault(lambda: prune(tmp_path, options, resume=True)).startswith(f"--resume: {path} is not there")
    with pytest.raises(CutError):
        prune(tmp_path, options, cut=1)
    other = fault(lambda: prune(tmp_path, OPTIONS["reload"], resume=True))
    changed = f"--resume: {path}: changed since it was begun:"
    assert other == f"{changed} epochs, distill, reload; give the same flags, data and code as then"
    whole = path.read_bytes()
    for damaged in (b"", b"noise", whole[: len(whole) // 2], whole.replace(b"rounds_done", b"rounds_gone")):
        path.write_bytes(damaged)
        assert str(path) in fault(lambda: prune(tmp_path, options, resume=True))


def test_other_contents_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start, data = tmp_path / "start.safetensors", images()
    model = Conv()
    checkpoint.write(start, "toys:Conv", model, {})
    request = PruneRequest("toys:Conv", "toys:images", start, TARGET, OPTIONS["rounds"])

    def run(data: Data, resume: bool) -> object:
        return prune_resume.prune_resumable(tmp_path, request, data, CPU, "here", resume, stop)

    def stop(step: PruneStep) -> None:
        raise CutError

    with pytest.raises(CutError):
        run(data, False)
    dark = Data(Split(data.train.inputs // 2, data.train.labels), data.validation, data.load_test)
    assert "changed since it was begun: training inputs; give" in fault(lambda: run(dark, True))
    with torch.no_grad():
        model.head.bias += 1
    checkpoint.write(start, "toys:Conv", model, {})
    assert "changed since it was begun: weights; give" in fault(lambda: run(data, True))


def test_another_code_of_a_pruner_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two texts of one second may have one cached form
    module, target = (
        tmp_path / "resumed_pruner.py",
        Conf(TARGET.ratios, dict.fromkeys(TARGET.ratios, "resumed_pruner:score")),
    )
    request = PruneRequest("toys:Conv", "toys:images", None, target, OPTIONS["rounds"])

    def run(text: str, resume: bool) -> object:
        module.write_text(text)
        sys.modules.pop("resumed_pruner", None)
        torch.manual_seed(0)
        return prune_resume.prune_resumable(tmp_path, request, images(), CPU, "here", resume, stop)

    def stop(step: PruneStep) -> None:
        raise CutError

    score = "def score(weight):\n    return weight.abs()\n"
    with pytest.raises(CutError):
        run(score, False)
    said = fault(lambda: run(score.replace("return ", "return -"), True))
    assert "changed since it was begun: code of resumed_pruner:score; give" in said
    with pytest.raises(CutError):
        run(score, True)
    sys.modules.pop("resumed_pruner")


def test_the_command(command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--model", "toys:mlp", "--data", "toys:images", "-l", 2, "-p", 0.9, "--out", tmp_path / "out", "--force")
    assert command("prune", *flags, "--iterations", 3, "--resume") == 2
    capsys.readouterr()
    assert command("prune", *flags, "--iterations", 3, "--json") == 0
    json.loads(capsys.readouterr().out)
    assert not (tmp_path / "out" / STATE_FILE).exists()
