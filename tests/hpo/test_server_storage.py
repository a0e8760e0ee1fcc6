"""A database server that goes and comes back: what was asked of it is done, and done once."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import pytest
from drivers import Driver, measured
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import TrialState
from sqlalchemy import event
from sqlalchemy.exc import OperationalError, ProgrammingError

from tune_prune.hpo import server_storage, storage
from tune_prune.hpo.server_storage import WAIT, ServerStorage
from tune_prune.hpo.study import trial_id


@dataclass
class Server:
    """A database that goes at its next transactions: before it does what they say, or after, before it says so."""

    storage: ServerStorage
    said: list[str]
    faults: list[str] = field(default_factory=list)
    error: type[Exception] = OperationalError

    def on_commit(self, connection: Any) -> None:
        if self.faults:
            if self.faults.pop(0) == "after":
                connection.connection.commit()
            else:
                connection.connection.rollback()
            raise self.error("COMMIT", None, Exception("terminating connection due to administrator command"))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[], float]:
    """Pauses that take no time."""
    now = [0.0]
    monkeypatch.setattr(server_storage.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(server_storage.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return lambda: now[0]


@pytest.fixture
def server(tmp_path: Path, clock: object) -> Iterator[Server]:
    said: list[str] = []
    opened = storage.open_url(f"sqlite:///{tmp_path / 'server.db'}", said.append)
    assert isinstance(opened, ServerStorage)
    made = Server(opened, said)
    event.listen(opened.engine, "commit", made.on_commit)
    yield made
    opened.remove_session()
    opened.engine.dispose()


def study_on(server: Server) -> optuna.Study:
    return optuna.create_study(storage=server.storage, study_name="toy", directions=["maximize", "minimize"])


@pytest.mark.parametrize("fault", ["before", "after"])
@pytest.mark.parametrize("times", [1, 2])
def test_every_write_is_done_once(server: Server, tmp_path: Path, fault: str, times: int) -> None:
    study = study_on(server)
    whole = Driver(tmp_path / "whole", optuna.create_study(directions=["maximize", "minimize"])).run(4)
    driver = Driver(tmp_path, study)
    configs = []
    for number in range(4):
        server.faults = [fault] * times
        configs.append(driver.suggest())
        assert server.faults == []
        assert [trial.number for trial in study.trials] == list(range(number + 1))
        assert study.trials[number].user_attrs == {}
        driver.trials._trial_store.set_attrs(number, exempt="it was")
        server.faults = [fault] * times
        driver.end(configs[-1], measured(configs[-1]))
        assert server.faults == []
        trial = study.trials[number]
        assert (trial.state, len(trial.constraints), trial.user_attrs) == (TrialState.COMPLETE, 1, {"exempt": "it was"})
    assert configs == whole
    assert driver.searcher.fatal_error is None


@pytest.mark.parametrize("state", [TrialState.PRUNED, TrialState.COMPLETE])
def test_an_end_that_the_server_did_not_confirm(server: Server, state: TrialState) -> None:
    study = study_on(server)
    study.ask()
    server.faults = ["after"]
    study.tell(0, [1.0, 2.0] if state == TrialState.COMPLETE else None, state=state)
    assert study.trials[0].state == state
    with pytest.raises(UpdateFinishedTrialError):  # another end than that is refused, as ever
        server.storage.set_trial_state_values(trial_id(study.trials[0]), state, [1.0, 3.0])


def test_a_line_says_that_it_waits_and_one_that_it_goes_on(server: Server, clock: Callable[[], float]) -> None:
    study = study_on(server)
    server.faults = ["before"] * 3
    study.set_user_attr("a", 1)
    assert study.user_attrs == {"a": 1}
    assert server.said == [
        f"the server of the study does not answer; waiting for it, {WAIT:g} s at most",
        f"the server of the study answers again, after {clock():.1f} s",
    ]


def test_a_server_that_stays_away_is_given_up(server: Server, clock: Callable[[], float]) -> None:
    study = study_on(server)
    server.faults = ["before"] * 1000
    with pytest.raises(StorageInternalError) as raised:
        study.set_user_attr("a", 1)
    assert isinstance(raised.value.__cause__, OperationalError)
    assert 60 <= WAIT <= clock() <= WAIT + 10


def test_what_is_wrong_is_not_tried_again(server: Server) -> None:
    study = study_on(server)
    server.faults, server.error = ["before"] * 2, ProgrammingError
    with pytest.raises(StorageInternalError):
        study.set_user_attr("a", 1)
    assert len(server.faults) == 1


def test_every_operation_that_waits_is_one_of_optuna() -> None:
    assert all(callable(getattr(optuna.storages.RDBStorage, name)) for name in server_storage.OPERATIONS)
