import math
from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tune_prune.common.errors import UserError
from tune_prune.results import conf
from tune_prune.results.conf import Conf

EXAMPLE = """\
1,4,8,10,12
0.5,0.7,0.95,0.7,0.5
mag,mag,taylor1,mag,mag
# rounds = 4
# epochs = 1.0
# validation_error = 0.86
"""

names = st.from_regex(r"[1-9][0-9]?|[a-z_]+(\.[a-z0-9_]+)*(:[a-z]+)?", fullmatch=True)
ratios = st.floats(0, 1, exclude_max=True)
texts = st.text(alphabet=st.characters(codec="utf-8"))
scalars = texts | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.booleans() | st.dates() | st.times()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=6)
notes = st.dictionaries(texts, values, max_size=4)


@st.composite
def confs(draw: st.DrawFn) -> Conf:
    drawn = draw(st.dictionaries(names, ratios, min_size=1, max_size=6))
    pruners = draw(st.none() | st.fixed_dictionaries(dict.fromkeys(drawn, names)))
    return Conf(drawn, pruners, draw(notes))


def fault(text: str) -> str:
    """The message of the error that `parse` raises for a wrong text."""
    with pytest.raises(UserError) as caught:
        conf.parse(text, "a.conf")
    return str(caught.value)


def is_equal(a: object, b: object) -> bool:
    """Whether values and their types are equal; NaN is equal to itself."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return list(a) == list(b) and all(is_equal(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(is_equal, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return a.hex() == b.hex()
    return type(a) is type(b) and a == b


def test_the_example() -> None:
    read = conf.parse(EXAMPLE, "a.conf")
    assert list(read.ratios.items()) == [("1", 0.5), ("4", 0.7), ("8", 0.95), ("10", 0.7), ("12", 0.5)]
    assert read.pruners == {"1": "mag", "4": "mag", "8": "taylor1", "10": "mag", "12": "mag"}
    assert read.notes == {"rounds": 4, "epochs": 1.0, "validation_error": 0.86}
    assert conf.dump(read) == EXAMPLE


@pytest.mark.parametrize(
    "text",
    [
        "8,1\n0.7,0",
        "8,1\n0.7,0\n",
        "8,1\r\n0.7,0\r\n",
        " 8, 1 \n0.7 ,0.0\n\n",
        "\ufeff8,1\n.7,0e0",
        "8,1\r7e-1,-0",
    ],
)
def test_files_of_torch7_pruner(text: str) -> None:
    read = conf.parse(text, "lenet5.conf")
    assert list(read.ratios.items()) == [("8", 0.7), ("1", 0.0)]
    assert read.pruners is None
    assert read.notes == {}


def test_remarks_are_not_notes() -> None:
    text = "8\n0.7\n# made by hand\n#a=1\n\n#\n## b = 2\n# [table]\nnonsense\n# = \n# c = [1\n# d = 'x' # why\n"
    read = conf.parse(text, "a.conf")
    assert read.pruners is None
    assert read.notes == {"a": 1, "d": "x"}


@given(confs())
@example(Conf({"8": 0.1 + 0.2}, None, {"line\nbreak": 'a "quote" \\ \x7f\x85\u2028\u202e # = \r\n', "": [{}]}))
@example(Conf({"8": 5e-324}, None, {"nan": math.nan, "inf": [math.inf, -math.inf], "zero": -0.0}))
def test_what_is_dumped_is_parsed_again(written: Conf) -> None:
    text = conf.dump(written)
    read = conf.parse(text, "a.conf")
    assert is_equal(read.ratios, written.ratios)
    assert read.pruners == written.pruners
    assert is_equal(read.notes, written.notes)
    assert len(text.splitlines()) == 2 + (written.pruners is not None) + len(written.notes)


@given(st.text() | st.text(alphabet="18,.#=[]{}\"'\n\r a\x00") | st.text().map(lambda tail: "8\n0.7\n#" + tail))
def test_any_text_is_a_conf_that_round_trips_or_a_user_error_of_one_line(text: str) -> None:
    try:
        read = conf.parse(text, "a.conf")
    except UserError as error:
        assert str(error).startswith("a.conf:")
        assert len(str(error).splitlines()) == 1
        return
    again = conf.parse(conf.dump(read), "a.conf")
    assert is_equal(again.ratios, read.ratios)
    assert again.pruners == read.pruners
    assert is_equal(again.notes, read.notes)


def test_a_note_nested_too_deeply_is_a_remark() -> None:
    assert conf.parse("8\n0.7\n# a = " + "[" * 100_000, "a.conf").notes == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a.conf:1: no layers here"),
        ("\n\n", "a.conf:1: no layers here"),
        ("# a = 1\n8\n0.7", "a.conf:1: no layers here"),
        ("1,4", "a.conf:2: no ratios here"),
        ("1,4\n# a = 1", "a.conf:2: no ratios here"),
        ("1,4,8\n0.5,0.7", "a.conf:2: 2 ratios for 3 layers"),
        ("1\n0.5,0.7", "a.conf:2: 2 ratios for 1 layers"),
        ("1,4\n0.5,0.7\nmag", "a.conf:3: 1 pruners for 2 layers"),
        ("1,4\n0.5,0.7\nmag,", "a.conf:3: empty pruner"),
        ("1,4\n0.5,mag", "a.conf:2: ratio must be in [0, 1), got 'mag', which is no number, for layer 4"),
        ("1,4\n0.5,", "a.conf:2: ratio must be in [0, 1), got '', which is no number, for layer 4"),
        ("4,8\n0.5,1.3", "a.conf:2: ratio must be in [0, 1), got 1.3 for layer 8"),
        ("8\n1", "a.conf:2: ratio must be in [0, 1), got 1 for layer 8"),
        ("8\n-0.1", "a.conf:2: ratio must be in [0, 1), got -0.1 for layer 8"),
        ("8\nnan", "a.conf:2: ratio must be in [0, 1), got nan for layer 8"),
        ("8\ninf", "a.conf:2: ratio must be in [0, 1), got inf for layer 8"),
        ("8,1,8\n0,0,0", "a.conf:1: layer 8 is named 2 times"),
        ("1,,8\n0,0,0", "a.conf:1: empty layer label"),
        ("1,8,\n0,0", "a.conf:1: empty layer label"),
        ("1 8\n0 0", "a.conf:1: bad layer label '1 8'"),
        ("1,#8\n0,0", "a.conf:1: bad layer label '#8'"),
        ("\x00\x01\n\x02", "a.conf:1: bad layer label '\\x00\\x01'"),
    ],
)
def test_faults_name_the_line_and_what_is_wrong(text: str, said: str) -> None:
    assert fault(text).startswith(said)


def test_a_fault_quotes_no_more_than_fits_a_line() -> None:
    assert len(fault("x y" * 1000 + "\n0.7")) < 200
    assert len(fault("8\n" + "x" * 1000)) < 200


def test_write_and_read(tmp_path: Path) -> None:
    path = tmp_path / "confs" / "001.conf"
    conf.write(path, conf.parse(EXAMPLE, "a.conf"))
    assert path.read_text() == EXAMPLE
    assert conf.read(path) == conf.parse(EXAMPLE, "a.conf")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.conf: cannot read it \(No such file or directory\)"):
        conf.read(tmp_path / "none.conf")
    with pytest.raises(UserError, match="cannot read it"):
        conf.read(tmp_path)


@given(st.binary())
def test_any_bytes_are_a_conf_or_a_user_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "binary.conf"
    path.write_bytes(data)
    try:
        conf.read(path)
    except UserError as error:
        assert str(error).startswith(f"{path}:")


def test_bytes_that_are_not_utf8_name_their_line(tmp_path: Path) -> None:
    path = tmp_path / "latin.conf"
    path.write_bytes(b"8\n0.7\n# by Andr\xe9\n")
    with pytest.raises(UserError, match=r"latin\.conf:3: not UTF-8 text"):
        conf.read(path)


@pytest.mark.parametrize("label", ["", "a,b", "a b", " a", "a\n", "#a", "\ud800"])
def test_a_layer_that_no_conf_can_name_is_not_written(label: str) -> None:
    with pytest.raises(UserError, match="layer label"):
        conf.dump(Conf({label: 0.5}))
    with pytest.raises(UserError, match="pruner"):
        conf.dump(Conf({"8": 0.5}, {"8": label}))


@pytest.mark.parametrize("ratio", [1.0, -0.1, math.nan, math.inf])
def test_a_ratio_out_of_range_is_not_written(ratio: float) -> None:
    with pytest.raises(UserError, match=r"ratio must be in \[0, 1\), got .* for layer 8"):
        conf.dump(Conf({"8": ratio}))


def test_a_conf_that_is_not_one_is_not_written() -> None:
    with pytest.raises(UserError, match="at least one layer"):
        conf.dump(Conf({}))
    with pytest.raises(ValueError, match="pruners for layers"):
        conf.dump(Conf({"8": 0.5}, {"10": "mag"}))
    with pytest.raises(TypeError, match="got NoneType"):
        conf.dump(Conf({"8": 0.5}, None, {"seed": None}))


def test_notes_of_kinds_that_reading_changes() -> None:
    class Numeric(float):
        """Like NumPy's double, whose repr is no number."""

        def __repr__(self) -> str:
            return f"np.float64({float(self)})"

    written = Conf({"8": Numeric(0.5)}, None, {"a": Numeric(1.5), "b": (1, 2), "c": "\ud800"})
    assert conf.dump(written) == '8\n0.5\n# a = 1.5\n# b = [1, 2]\n# c = "?"\n'


def test_a_date_in_a_note() -> None:
    read = conf.parse("8\n0.7\n# day = 2016-05-01\n# at = 2016-05-01T12:00:00Z\n", "a.conf")
    assert read.notes["day"] == date(2016, 5, 1)
    assert isinstance(read.notes["at"], datetime)
    assert conf.parse(conf.dump(read), "a.conf") == read
