import json
import socket
import urllib.request
from pathlib import Path

import pytest
from deadlines import WAIT
from toys import fault

from tune_prune.hpo import storage
from tune_prune.hpo.study import open_study
from tune_prune.results.constraints import Constraints
from tune_prune.workflows import dashboard


def studies(address: str) -> list[dict[str, object]]:
    with urllib.request.urlopen(f"{address}api/studies", timeout=WAIT) as answer:
        found: list[dict[str, object]] = json.load(answer)["study_summaries"]
    return found


def test_it_shows_the_study_and_goes(tmp_path: Path) -> None:
    study_file, said = storage.open_file(tmp_path), list[str]()
    open_study(study_file, "mine", tmp_path, {"model": "x"}, Constraints(2.0))
    with socket.socket() as taken:  # another program has the usual port, or this one takes it
        try:
            taken.bind(("127.0.0.1", dashboard.PORT))
            taken.listen()
        except OSError:
            pass
        with dashboard.serve_dashboard(study_file, said.append) as address:
            assert said == [f"dashboard: {address}"]
            assert [study["study_name"] for study in studies(address)] == ["mine"]
    with pytest.raises(OSError):
        studies(address)


def test_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashboard, "find_spec", lambda name: None)
    assert fault(dashboard.check_dashboard) == "--dashboard needs optuna-dashboard: pip install 'tune-prune[dashboard]'"
