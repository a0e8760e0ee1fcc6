import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from rich.console import Console
from toys import images

from tune_prune.common.errors import UserError
from tune_prune.hpo.budget import SearchEnd
from tune_prune.pruning import checkpoint, masks
from tune_prune.pruning.coverage import Coverage
from tune_prune.results import conf, records, test_record
from tune_prune.results.confidence import Confirmation, wilson_interval
from tune_prune.results.records import PointRecord, TrialRecord
from tune_prune.results.run_info import RunInfo
from tune_prune.results.summary import earlier_wall_seconds, read_final_summary
from tune_prune.results.trial_params import TrialParams
from tune_prune.tasks.metrics import evaluate
from tune_prune.tasks.splits import Split
from tune_prune.tasks.task import Task
from tune_prune.workflows.console import SearchConsole
from tune_prune.workflows.finalize import Ending, write_results
from tune_prune.workflows.selection import select_front

FILES = ["best.conf", "checkpoints", "confs", "pareto.csv", "pareto.png", "points.csv", "report.html", "summary.json"]
FIRST = {"points.csv", "trials.csv", "pareto.csv", "summary.json", "confs", "best.conf"}
"""What is written before anything that may fail."""


@pytest.fixture
def task(toy_task: Task) -> Task:
    return toy_task


@pytest.fixture
def info(task: Task) -> RunInfo:
    return RunInfo(
        space="toy",
        model="toys:mlp",
        data="toys:images",
        seed=1,
        budget=4,
        concurrency=1,
        device="cpu",
        sampler="tpe",
        acc_tradeoff=50.0,
        dense_metric=task.dense.metric,
        shapes={"2": (16, 64), "4": (4, 16)},
        coverage=Coverage(1088, 1088),
        command="tune-prune search",
        versions={"torch": "2"},
    )


@pytest.fixture
def measured(task: Task, info: RunInfo, tmp_path: Path) -> Callable[..., TrialRecord]:
    """Prunes layer 2, as a trial would, and leaves the trial's record and its checkpoint in the run directory."""

    def write(trial: int, ratio: float, error: float | None = None, state: str = "complete") -> TrialRecord:
        model = task.dense_model(torch.device("cpu"))
        mask = masks.dense_masks(model)
        mask["2"] = masks.shrink(mask["2"], masks.prunable(model)["2"].abs(), ratio)
        masks.apply(model, mask)
        reached, found = masks.compression(mask), evaluate(model, task.validation)
        error = found.metric if error is None else error
        path = f"rounds/{trial}-1.safetensors"
        checkpoint.write(tmp_path / path, "toys:mlp", model, mask)
        feasible = error <= info.limit
        ratios = {"2": ratio}
        point = PointRecord(1, reached, masks.factor(reached), error, found.loss, feasible, 0.5, ratios, path)
        record = TrialRecord(trial, state, TrialParams({"2": ratio}), {"2": "mag"}, [point], cpu_seconds=2.0)
        records.write(tmp_path, record)
        return record

    return write


class TestImages:
    """The test images, and how often they were read."""

    __test__ = False

    def __init__(self) -> None:
        self.read = 0

    def load(self) -> Split:
        self.read += 1
        return images().load_test()


def before_commands(shown: str) -> str:
    """What is on the screen without the commands at its end."""
    text, heading, commands = shown.partition("what to type next:\n")
    assert heading
    assert all(line.startswith("  ") for line in commands.splitlines())
    return text


def finalized(
    run_dir: Path, task: Task, info: RunInfo, test: TestImages | None = None, ending: Ending | None = None
) -> tuple[int, str]:
    """The exit code, and what is on the screen."""
    shown = io.StringIO()
    console = SearchConsole(Console(file=shown, width=140))
    ending = ending or Ending(SearchEnd.BUDGET, 10.0 + earlier_wall_seconds(run_dir), 4.0)
    front = select_front(run_dir, info, ending.end)
    code = write_results(run_dir, task, info, (test or TestImages()).load, console, front, ending)
    return code, shown.getvalue()


def summary_of(run_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run_dir / "summary.json").read_text())
    return found


def test_every_file_is_there_and_they_agree(tmp_path: Path, task: Task, info: RunInfo, measured) -> None:
    for trial, ratio in enumerate((0.2, 0.5, 0.8)):
        measured(trial, ratio, error=60.0 + trial)  # so that all three are on the front
    test = TestImages()
    code, shown = finalized(tmp_path, task, info, test)
    assert (code, test.read) == (0, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [*FILES, "trials.csv", "results", "rounds", "test_results.json"]
    )
    summary, split = summary_of(tmp_path), images().load_test()
    assert [member["id"] for member in summary["front"]] == ["001", "002", "003"]
    for member in summary["front"]:
        model, mask = checkpoint.restore(checkpoint.read(tmp_path / member["checkpoint"]), "x")
        error = evaluate(model, split).metric
        assert (masks.compression(mask), error) == (member["compression"], member["test_error"])
        low_high = wilson_interval(round(error * len(split.labels) / 100), len(split.labels))
        assert (member["test_error_low"], member["test_error_high"]) == low_high
        noted = conf.read(tmp_path / member["conf"]).notes
        assert (noted["compression"], noted["test_error"]) == (member["compression"], error)
        assert f"{error:.2f} %" in shown
    dense = evaluate(task.dense_model(torch.device("cpu")), split).metric
    assert summary["dense"] == {"val_error": info.dense_metric, "test_error": dense}
    assert summary["cpu_seconds"] == 4 + 3 * 2
    assert (tmp_path / "best.conf").read_bytes() == (tmp_path / "confs/003.conf").read_bytes()
    assert list(pd.read_csv(tmp_path / "pareto.csv")["test_error"]) == [m["test_error"] for m in summary["front"]]
    assert "most compressed: 4.0x at 62.00 % validation error" in shown


def test_refitted_weights_take_the_place_of_those_that_were_chosen(
    tmp_path: Path, task: Task, info: RunInfo, measured
) -> None:
    for trial, ratio in enumerate((0.2, 0.5)):
        measured(trial, ratio, error=60.0 + trial)
    model, mask = checkpoint.restore(checkpoint.read(tmp_path / "rounds/1-1.safetensors"), "x")
    with torch.no_grad():
        masks.prunable(model)["2"].mul_(2)
    checkpoint.write(tmp_path / "refits/1-1.safetensors", "toys:mlp", model, mask)
    again = {"001": Confirmation((60.0, 61.0), info.limit)}
    ending = Ending(SearchEnd.BUDGET, 10.0, 4.0, again, {"002": "refits/1-1.safetensors"})
    code, shown = finalized(tmp_path, task, info, ending=ending)
    assert code == 0
    first, second = summary_of(tmp_path)["front"]
    assert (first["refit"], second["refit"]) == (False, True)
    assert (first["confirm_mean"], second["confirm_mean"]) == (60.5, None)
    assert second["test_error"] == evaluate(model, images().load_test()).metric
    written = (tmp_path / "checkpoints/002.safetensors").read_bytes()
    assert written == (tmp_path / "refits/1-1.safetensors").read_bytes()
    assert conf.read(tmp_path / "confs/002.conf").notes["refit_test_error"] == second["test_error"]
    assert "tested after a refit" in shown
    assert "60.50 ± 0.71 %, holds" in shown
    page = (tmp_path / "report.html").read_text()
    assert '60.50 %</td><td class="right">63.66 % holds</td>' in page
    assert "refitted on training and validation data together" in page


def test_nothing_keeps_the_tradeoff(tmp_path: Path, task: Task, info: RunInfo, measured) -> None:
    strict = replace(info, acc_tradeoff=0.5)
    for trial, error in enumerate((task.dense.metric + 3, task.dense.metric + 2)):
        record = measured(trial, 0.5, error)
        records.write(tmp_path, replace(record, points=[replace(record.last, feasible=False)]))
    code, shown = finalized(tmp_path, task, strict)
    assert code == 3
    summary = summary_of(tmp_path)
    assert (summary["front"], summary["best"], summary["smallest_tradeoff"]) == ([], None, 2.0)
    assert summary["dense"]["test_error"] is not None
    assert conf.read(tmp_path / "closest.conf").notes["trial"] == 1
    assert before_commands(shown).splitlines()[-1] == f"files: {tmp_path} (report.html, pareto.png, closest.conf)"
    assert "no point keeps the tradeoff of 0.5 points" in shown
    assert "would keep one of 2\n" in shown
    hardest = summary["hardest_layer"]
    assert (hardest["layer"], hardest["ratio"]) == ("2", 0.5)  # the one that is pruned
    alone = f"pruned alone by 0.5, and not retrained, it makes {hardest['val_error']:.2f} %"
    assert f"layer 2 stands most in the way: {alone}" in shown
    assert {path.name for path in tmp_path.iterdir()} == {
        *FILES, "trials.csv", "closest.conf", "results", "rounds", "test_results.json"
    } - {"best.conf", "confs", "checkpoints"}  # fmt: skip


def test_an_ending_removes_the_best_of_an_earlier_one(tmp_path: Path, task: Task, info: RunInfo, measured) -> None:
    record = measured(0, 0.5, 60.0)
    assert finalized(tmp_path, task, info)[0] == 0
    assert (tmp_path / "best.conf").is_file()
    records.write(tmp_path, replace(record, points=[replace(record.last, feasible=False)]))
    assert finalized(tmp_path, task, info)[0] == 3
    assert not any((tmp_path / name).exists() for name in ("best.conf", "confs", "checkpoints"))
    assert summary_of(tmp_path)["closest"]["conf"] == "closest.conf"
    page = (tmp_path / "report.html").read_text()
    assert '<a href="closest.conf">' in page
    assert "Missing or damaged" not in page
    records.write(tmp_path, record)
    code, shown = finalized(tmp_path, task, info)
    assert (code, (tmp_path / "closest.conf").exists()) == (0, False)
    assert (
        before_commands(shown).splitlines()[-1]
        == f"files: {tmp_path} (report.html, pareto.png, best.conf, checkpoints/)"
    )


@pytest.mark.parametrize("end", [SearchEnd.BUDGET, SearchEnd.TIME_BUDGET, SearchEnd.INTERRUPTED])
def test_nothing_was_measured(tmp_path: Path, task: Task, info: RunInfo, end: SearchEnd) -> None:
    assert finalized(tmp_path, task, info, ending=Ending(end, 10.0, 4.0))[0] == 3
    assert summary_of(tmp_path)["points"] == 0


def test_an_interruption_leaves_the_test_images_unread(tmp_path: Path, task: Task, info: RunInfo, measured) -> None:
    measured(0, 0.5)
    test = TestImages()
    finalized(tmp_path, task, info, test, ending=Ending(SearchEnd.INTERRUPTED, 10.0, 4.0))
    assert test.read == 0
    summary = summary_of(tmp_path)
    assert [member["test_error"] for member in summary["front"]] == [None]
    assert summary["dense"]["test_error"] is None
    assert (tmp_path / "report.html").is_file()
    assert finalized(tmp_path, task, info, test)[0] == 0  # resumed, and done
    assert test.read == 1
    assert summary_of(tmp_path)["front"][0]["test_error"] is not None


def test_trials_that_were_running_count_as_stopped(tmp_path: Path, task: Task, info: RunInfo, measured) -> None:
    measured(0, 0.5)
    measured(1, 0.8, state="running")
    before = records.record_path(tmp_path, 1).read_bytes()
    finalized(tmp_path, task, info, ending=Ending(SearchEnd.TIME_BUDGET, 10.0, 4.0))
    assert records.record_path(tmp_path, 1).read_bytes() == before
    table = pd.read_csv(tmp_path / "trials.csv")
    assert list(table["state"]) == ["complete", "stopped"]
    assert table["reason"][1] == "time budget"
    assert summary_of(tmp_path)["trials"] == {"completed": 1, "stopped": 1, "failed": 0, "infeasible": 0}


def test_a_checkpoint_of_another_compression(tmp_path: Path, task: Task, info: RunInfo, measured) -> None:
    record, other = measured(0, 0.5, error=60.0), measured(1, 0.8, error=61.0)
    (tmp_path / str(record.last.checkpoint)).write_bytes((tmp_path / str(other.last.checkpoint)).read_bytes())
    with pytest.raises(RuntimeError, match=r"0-1\.safetensors: holds another compression than its trial measured"):
        finalized(tmp_path, task, info)
    assert {path.name for path in tmp_path.iterdir()} >= FIRST
    summary = summary_of(tmp_path)
    assert [member["test_error"] for member in summary["front"]] == [None, None]
    assert read_final_summary(tmp_path) is None
    (tmp_path / str(record.last.checkpoint)).unlink()
    with pytest.raises(RuntimeError, match=r"0-1\.safetensors"):
        finalized(tmp_path, task, info)
    assert summary_of(tmp_path)["dense"]["test_error"] is not None  # it was measured by then


def damaged_inputs(run_dir: Path) -> Split:
    """Test images of another shape than the model takes."""
    return Split(torch.zeros(5, 1, 3, 3), torch.zeros(5, dtype=torch.int64))


def no_such_file(run_dir: Path) -> Split:
    raise UserError("test.idx: cannot be read")


def no_checkpoint(run_dir: Path) -> Split:
    (run_dir / "rounds/0-1.safetensors").unlink()
    return images().load_test()


@pytest.mark.parametrize("fault", [damaged_inputs, no_such_file, no_checkpoint])
def test_whatever_fails_in_the_test_files_are_written_first(
    tmp_path: Path, task: Task, info: RunInfo, measured, fault: Callable[[Path], Split]
) -> None:
    measured(0, 0.5, error=60.0)
    test = TestImages()
    test.load = lambda: fault(tmp_path)  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):  # and so exit code 1, not 2
        finalized(tmp_path, task, info, test)
    assert {path.name for path in tmp_path.iterdir()} >= FIRST
    assert conf.read(tmp_path / "best.conf").notes["compression"] == summary_of(tmp_path)["front"][0]["compression"]


@pytest.mark.parametrize("where", ["write_report", "pareto_plot.draw_pareto", "writer.write_checkpoints"])
def test_whatever_fails_after_the_test_files_are_written_first(
    tmp_path: Path, task: Task, info: RunInfo, measured, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise UserError("points.csv: damaged")

    measured(0, 0.5, error=60.0)
    monkeypatch.setattr(f"tune_prune.workflows.finalize.{where}", fails)
    with pytest.raises(RuntimeError, match=r"points\.csv: damaged"):
        finalized(tmp_path, task, info)
    assert {path.name for path in tmp_path.iterdir()} >= FIRST
    assert summary_of(tmp_path)["front"][0]["test_error"] is not None


def test_the_same_weights_are_tested_once(tmp_path: Path, task: Task, info: RunInfo, measured) -> None:
    measured(0, 0.2, error=60.0)
    test = TestImages()
    finalized(tmp_path, task, info, test)
    first = summary_of(tmp_path)["front"]
    finalized(tmp_path, task, info, test)
    finalized(tmp_path, task, info, test, ending=Ending(SearchEnd.INTERRUPTED, 10.0, 4.0))
    assert (summary_of(tmp_path)["front"], test.read) == (first, 1)  # an interruption takes nothing away
    measured(1, 0.5, error=61.0)
    finalized(tmp_path, task, info, test, ending=Ending(SearchEnd.INTERRUPTED, 10.0, 4.0))
    assert [member["test_error"] for member in summary_of(tmp_path)["front"]] == [first[0]["test_error"], None]
    assert read_final_summary(tmp_path) is None
    finalized(tmp_path, task, info, test)
    kept = test_record.read(tmp_path)
    assert (test.read, kept.reads, kept.images, len(kept.metrics)) == (2, 2, 120, 3)  # the dense model among them
    front = summary_of(tmp_path)["front"]
    assert front[0] == first[0]
    assert front[1]["test_error"] in kept.metrics.values()
    assert read_final_summary(tmp_path) is not None


def test_results_of_other_test_images_do_not_count(tmp_path: Path, task: Task, info: RunInfo, measured) -> None:
    measured(0, 0.2, error=60.0)
    finalized(tmp_path, task, info)
    written = json.loads((tmp_path / test_record.FILE).read_text())
    errors = dict.fromkeys(written["errors"], 0.0)
    (tmp_path / test_record.FILE).write_text(json.dumps(written | {"data": "another", "errors": errors}))
    measured(1, 0.5, error=61.0)  # so that the test images are read again
    finalized(tmp_path, task, info)
    assert all(member["test_error"] > 0 for member in summary_of(tmp_path)["front"])
    assert test_record.read(tmp_path).reads == 1


@pytest.mark.parametrize("text", ["", "[]", '{"errors": {}}', '{"images": 0, "data": "", "reads": 1, "errors": {}}',
                                  '{"images": 9, "data": "", "reads": 1, "errors": {"a": 200}}'])  # fmt: skip
def test_a_damaged_record_of_tests_is_written_anew(
    tmp_path: Path, task: Task, info: RunInfo, measured, text: str
) -> None:
    measured(0, 0.2, error=60.0)
    (tmp_path / test_record.FILE).write_text(text)
    finalized(tmp_path, task, info)
    assert summary_of(tmp_path)["front"][0]["test_error"] in test_record.read(tmp_path).metrics.values()


def test_times_of_a_resumed_run_add_up(tmp_path: Path, task: Task, info: RunInfo, measured) -> None:
    measured(0, 0.5)
    for seconds in (10, 20, 30):
        finalized(tmp_path, task, info)
        assert summary_of(tmp_path)["wall_seconds"] == seconds


# Certificates


def certified(run_dir: Path, task: Task, info: RunInfo, test: TestImages, level: float | None = 0.95) -> str:
    """What the console says where certificates are asked for."""
    ending = Ending(SearchEnd.BUDGET, 10.0, 4.0, certify=level)
    code, said = finalized(run_dir, task, info, test, ending)
    assert code == 0
    return said


def test_certificates(task: Task, info: RunInfo, measured: Callable[..., TrialRecord], tmp_path: Path) -> None:
    """Of a member that is like the dense model, and of one that answers what is seldom right, unlike what it claims."""
    measured(0, 0.01, 1.0)
    path = tmp_path / str(measured(1, 0.999, 2.0).last.checkpoint)
    model, mask = checkpoint.restore(checkpoint.read(path), "x")
    rarest = int(images().load_test().count_labels().argmin())
    model.get_parameter("3.bias").data[rarest] += 100
    checkpoint.write(path, "toys:mlp", model, mask)
    info = replace(info, acc_tradeoff=5.0)
    said = certified(tmp_path, task, info, TestImages())
    summary, table = summary_of(tmp_path), pd.read_csv(tmp_path / "pareto.csv")
    assert (summary["certify"], summary["certified"]) == (0.95, "001")
    assert table["certified"].tolist() == [True, False]
    assert table["certify_p"][0] <= 0.05 < table["certify_p"][1]
    assert table["certify_bound"][0] <= 5 < table["certify_bound"][1]
    assert "certified: 001, 1.0x: at most 5 points more error than the dense model on unseen data, with 95 %" in said
    assert conf.read(tmp_path / "certified.conf").ratios == conf.read(tmp_path / "confs" / "001.conf").ratios
    page = (tmp_path / "report.html").read_text()
    assert "Certified, 001 and all less compressed ones: at most 5 points more error" in page
    assert "95 % bound of how much worse" in page
    outcomes = test_record.read(tmp_path).outcomes
    errors = test_record.read(tmp_path).metrics
    assert {key: 100 * len(wrong) / 120 for key, wrong in outcomes.items()} == pytest.approx(errors)


def test_a_certificate_that_is_asked_for_later_measures_samples_alone(
    task: Task, info: RunInfo, measured: Callable[..., TrialRecord], tmp_path: Path
) -> None:
    measured(0, 0.01, 1.0)
    test = TestImages()
    certified(tmp_path, task, info, test, None)
    before = test_record.read(tmp_path)
    assert "certified" not in summary_of(tmp_path)
    assert "certified" not in pd.read_csv(tmp_path / "pareto.csv")
    assert not (tmp_path / "certified.conf").exists()
    certified(tmp_path, task, info, test)
    after = test_record.read(tmp_path)
    assert (test.read, len(after.outcomes), after.metrics) == (2, 2, before.metrics)
    certified(tmp_path, task, info, test, 0.99)  # by what was measured then
    assert (test.read, summary_of(tmp_path)["certify"]) == (2, 0.99)


@pytest.mark.parametrize("outcome", ['{"wrong": [120]}', '{"wrong": ["a"]}', '{"mean": "none", "values": [1]}', "[]"])
def test_a_damaged_outcome_is_measured_again(
    task: Task, info: RunInfo, measured: Callable[..., TrialRecord], tmp_path: Path, outcome: str
) -> None:
    measured(0, 0.01, 1.0)
    certified(tmp_path, task, info, TestImages())
    whole, path = test_record.read(tmp_path), tmp_path / test_record.FILE
    raw = json.loads(path.read_text())
    raw["outcomes"][next(iter(raw["outcomes"]))] = json.loads(outcome)
    path.write_text(json.dumps(raw))
    assert not test_record.read(tmp_path).metrics
    certified(tmp_path, task, info, TestImages())
    assert test_record.read(tmp_path).outcomes == whole.outcomes
