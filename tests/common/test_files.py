import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import fault

from tune_prune.common import files


def test_bytes_and_parents(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "model.bin"
    files.write_bytes(path, b"\x00\xff\r\n")
    assert path.read_bytes() == b"\x00\xff\r\n"
    assert os.listdir(path.parent) == ["model.bin"]


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_text_is_utf8_with_its_line_ends_unchanged(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "note.txt"
    files.write_text(path, text)
    assert path.read_bytes() == text.encode("utf-8")


def test_a_suffix_is_appended(tmp_path: Path) -> None:
    assert files.add_suffix(tmp_path / "m.lr0.1", ".csv") == tmp_path / "m.lr0.1.csv"


def test_it_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    files.write_text(path, "a long first version")
    files.write_text(path, "second")
    assert path.read_text() == "second"


def test_a_name_of_the_greatest_length(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    files.write_bytes(path, b"x")
    assert path.read_bytes() == b"x"


@pytest.mark.skipif(os.name != "posix", reason="permission bits")
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_permissions_are_those_of_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        files.write_bytes(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("failure", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failure_keeps_the_old_file_and_leaves_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, failure: BaseException
) -> None:
    def fail(*args: object) -> None:
        raise failure

    path = tmp_path / "study.json"
    files.write_text(path, "old")
    monkeypatch.setattr(os, step, fail)
    with pytest.raises(type(failure)):
        files.write_text(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["study.json"]


def test_a_directory_in_the_way_stays(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError):
        files.write_bytes(tmp_path / "taken", b"x")
    assert os.listdir(tmp_path) == ["taken"]


def test_text_that_utf8_cannot_hold_touches_nothing(tmp_path: Path) -> None:
    with pytest.raises(UnicodeEncodeError):
        files.write_text(tmp_path / "new" / "file", "\ud800")
    assert not os.listdir(tmp_path)


# What leads elsewhere


def tree(root: Path) -> Path:
    """A directory with files and a link within it."""
    (root / "run" / "rounds" / "deep").mkdir(parents=True)
    (root / "run" / "rounds" / "deep" / "a").write_text("a")
    (root / "run" / "latest").symlink_to("rounds/deep")
    (root / "outside").mkdir()
    (root / "run-2").mkdir()
    return root / "run"


def test_links_within_a_directory(tmp_path: Path) -> None:
    run = tree(tmp_path)
    files.check_contained(run)
    (tmp_path / "link").symlink_to(run)
    files.check_contained(tmp_path / "link")
    files.check_contained(tmp_path / "none")


@pytest.mark.parametrize("target", ["../outside", "../run-2", "/etc", "nothing/../../gone", "rounds/../../outside"])
@pytest.mark.parametrize("name", ["a", "rounds/a", "rounds/deep/b"])
def test_links_out_of_a_directory(tmp_path: Path, target: str, name: str) -> None:
    run = tree(tmp_path)
    (run / name).symlink_to(tmp_path / "run" / target if not target.startswith("/") else target)
    said = f"{run / name}: a link out of this directory, which is not followed; put a copy in its place"
    assert fault(lambda: files.check_contained(run)) == said


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    run = tree(tmp_path)
    os.mkfifo(run / "rounds" / "pipe")
    assert fault(lambda: files.check_contained(run)) == f"{run}/rounds/pipe: neither a file nor a directory; remove it"
