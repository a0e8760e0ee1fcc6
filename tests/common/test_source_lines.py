"""The line of a user's code that failed is found, wherever the user works."""

import runpy
from pathlib import Path

import pytest

from tune_prune.common.source_lines import describe_failure, find_definition, find_failure


@pytest.mark.parametrize("folder", ["work", "tune_prune"])  # the last as a clone of this project is called
def test_the_last_line_of_the_users_is_named(tmp_path: Path, folder: str) -> None:
    mine = tmp_path / folder / "mine.py"
    mine.parent.mkdir()
    mine.write_text("import json\n\n\ndef load():\n    return json.loads('{')\n")
    load = runpy.run_path(str(mine))["load"]
    assert find_definition(load) == "mine.py:4"
    with pytest.raises(ValueError, match="property name") as caught:
        load()
    assert find_failure(caught.value, load) == " at mine.py:5, `return json.loads('{')`"
    assert find_failure(caught.value) == find_failure(caught.value, load)  # and not the line of Python's own module
    assert describe_failure("data", "mine:load", load, caught.value).startswith("data 'mine:load' fails at mine.py:5")


def test_without_a_line_of_the_users_there_is_no_place() -> None:
    assert find_failure(ValueError("never raised")) == ""
    assert describe_failure("data", "mine:load", None, ValueError("never raised")) == "data 'mine:load' fails"
