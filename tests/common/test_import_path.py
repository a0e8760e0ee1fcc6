import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from deadlines import WAIT

import tune_prune
from tune_prune.common import import_path

ROOT = Path(tune_prune.__file__).parents[1]
LAUNCH = ["launch.py"]
MODULE = ["-m", "tune_prune"]
SCRIPT = [str(Path(sys.executable).with_name("tune-prune"))]


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A working directory with files that are called as libraries are, and note that they ran; launch.py as well."""
    shutil.copy(ROOT / "launch.py", tmp_path)
    for name in ("torch", "safetensors", "typer", "rich", "dataclasses", "typing", "evil"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write('{name} ')\ndef f(): ...")
    return tmp_path


@pytest.fixture
def path(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The path that modules are looked for on, with code that may be imported, until the test ends."""
    monkeypatch.setenv(import_path.NO_CODE, "")
    monkeypatch.setattr(sys, "argv", ["tune-prune", "search"])
    monkeypatch.setattr(sys, "path", ["/script", "/lib"])
    return sys.path


@pytest.mark.parametrize(
    ("program", "command"),
    [
        (LAUNCH, ["--space", "none.toml", "--no-code"]),
        (MODULE, ["test", "none.safetensors"]),
        (SCRIPT, ["test", "none.safetensors"]),
    ],
)
def test_files_of_the_working_directory_do_not_run_in_place_of_libraries(
    hostile: Path, program: list[str], command: list[str]
) -> None:
    done = subprocess.run(
        [sys.executable, *program, *command], cwd=hostile, capture_output=True, text=True, timeout=WAIT, check=False
    )
    assert done.returncode == 2
    assert "loading PyTorch" in done.stdout or not done.stdout
    assert done.stderr.startswith("tune-prune: ")
    assert not (hostile / "ran").exists()


def test_a_script_s_folder_comes_last(path: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import_path.demote_first_entry()
    assert path == ["/lib", "/script"]
    monkeypatch.setattr(sys, "argv", ["launch.py", "--budget", "3", "--no-code"])
    sys.path[:] = ["/script", "/lib"]
    import_path.demote_first_entry()
    assert path == ["/lib"]
    assert import_path.is_code_refused()


def test_the_working_directory_comes_last(tmp_path: Path, path: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        import_path.add_working_directory()
        assert path == ["/script", "/lib", str(tmp_path)]


@pytest.mark.parametrize("entry", ["", ".", "{}", "{}/../{}"])
def test_no_code_takes_the_working_directory_out(
    tmp_path: Path, path: list[str], monkeypatch: pytest.MonkeyPatch, entry: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["tune-prune", "test", "--no-code"])
    path.insert(0, entry.format(tmp_path, tmp_path.name))
    import_path.add_working_directory()
    assert path == ["/script", "/lib"]
