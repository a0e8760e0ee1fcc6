"""A search whose trials two processes train together, in a Ray of its own: one process dies, and one fails."""

import sys
from collections.abc import Iterator

import pytest
from deadlines import scaled
from searches import SPACE, searched, without_ray
from test_authentication import LOOPBACK
from test_launch import MODULE, Lab, ended, until

from tune_prune.results import records
from tune_prune.results.records import TrialRecord

pytestmark = [pytest.mark.faults, pytest.mark.timeout(scaled(3600))]

RANKS = '''

STEPS = 0


def note_listening():
    """Writes at which addresses this process listens."""
    path = HERE / f"listening-{os.getpid()}"
    if sys.platform != "linux" or path.exists():
        return
    own = set()
    for link in Path("/proc/self/fd").glob("*"):
        with suppress(OSError):
            own.add(os.readlink(link))
    rows = [row.split() for table in ("tcp", "tcp6") for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
    found = [row[1].rpartition(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in own]
    path.write_text(" ".join(found))


class Model(nn.Sequential):
    """The process of rank 1 dies in its first step; the next one fails once, in the step after the first trial's."""

    def __init__(self):
        super().__init__(*mlp())

    def forward(self, inputs):
        global STEPS
        if self.training and torch.distributed.is_initialized():
            note_listening()
        if self.training and torch.distributed.is_initialized() and torch.distributed.get_rank() == 1:
            STEPS += 1
            if not (HERE / "died").exists():
                (HERE / "died").touch()
                os.kill(os.getpid(), 9)
            if STEPS > 2 + 10 and not (HERE / "raised").exists():
                (HERE / "raised").touch()
                raise ValueError("in rank 1 alone")
        return super().forward(inputs)
'''


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    made = Lab(tmp_path_factory.mktemp("ranks"))
    (made.folder / "my_ranks.py").write_text("import sys\nfrom contextlib import suppress\n" + MODULE + RANKS)
    text = SPACE.replace("toys:mlp", "my_ranks:Model").replace("toys:", "my_ranks:")
    text = text.replace('["mag", "taylor1"]', '"mag"')
    text = text.replace("[space]", "workers_per_trial = 2\n[space]", 1)
    (made.folder / "toy.toml").write_text(text)
    yield made
    made.kill()


@pytest.fixture(scope="module")
def found(lab: Lab) -> list[TrialRecord]:
    """The trials of a search, after which no process is left."""
    flags = ("--space", "toy.toml", "--force", "--run-dir", "run", "--seed", 3, "--budget", 3, "--quiet")
    code, out, err = ended(lab.start("-m", "tune_prune", "search", *flags))
    assert (code, out, err) == (0, "", "")
    assert (lab.folder / "died").exists()
    until(lambda: not lab.left())
    return records.read_all(lab.folder / "run")


def test_a_trial_begins_again_after_a_process_has_died_and_fails_where_one_has_failed(found: list[TrialRecord]) -> None:
    assert [record.trial for record in found] == list(range(3))
    assert [record.state for record in found] == ["complete", "failed", "complete"]
    assert found[1].reason == "ValueError: in rank 1 alone"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_its_processes_listen_on_loopback_alone(lab: Lab, found: list[TrialRecord]) -> None:
    texts = [path.read_text() for path in lab.folder.glob("listening-*")]
    assert len(texts) >= 4  # two starts, and another after the failure
    assert all(texts)
    assert {address for text in texts for address in text.split()} <= {*LOOPBACK}


def test_a_trial_measures_what_it_does_in_one_process(
    lab: Lab, found: list[TrialRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(lab.folder)
    with without_ray():
        searched(lab.folder / "toy.toml", "alone", seed=3, budget=1)
    [alone] = records.read_all(lab.folder / "alone")
    first = found[0]
    assert (first.params, first.state) == (alone.params, "complete")
    for ours, theirs in zip(first.points, alone.points, strict=True):
        assert ours.compression == theirs.compression
        assert ours.val_loss == pytest.approx(theirs.val_loss, rel=1e-4)
