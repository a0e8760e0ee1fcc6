"""Any text makes a space, or a `UserError` of one line that begins with the file."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from test_space_reader import LENET, TOML

from tune_prune.common.errors import UserError
from tune_prune.hpo import space_reader
from tune_prune.hpo.parameters import PARAMETERS


def toml(value: object) -> str:
    """A value as TOML, on one line."""
    match value:
        case dict():
            return "{" + ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items()) + "}"
        case list():
            return "[" + ", ".join(toml(item) for item in value) + "]"
        case bool():
            return str(value).lower()
    return json.dumps(value) if isinstance(value, str) else repr(value)


words = st.sampled_from([*LENET, "*", "mag", "taylor1", "linear", "lenet5", "mnist", "low", "conv", ""])
scalars = words | st.booleans() | st.integers() | st.floats() | st.integers(1, 9)
ranges = st.fixed_dictionaries({"low": scalars, "high": scalars}, optional={"log": scalars, "step": scalars})
values = scalars | ranges | st.lists(scalars, max_size=3) | st.lists(ranges, max_size=2)
shares = st.floats(0, 0.99)
ratio = shares | st.fixed_dictionaries({"low": st.floats(0, 0.5), "high": st.floats(0.5, 0.99)})
ratios = st.dictionaries(words, ratio, min_size=1, max_size=3)
settings = st.dictionaries(st.sampled_from(list(PARAMETERS)), values, max_size=2)
with_ratio = st.builds(lambda ratio, others: {"ratio": ratio} | others, ratios | values, settings)
spaces = st.fixed_dictionaries(
    {
        "task": st.just({"model": "lenet5", "data": "mnist"}),
        "space": st.builds(lambda ratio, others: {"ratio": ratio} | others, ratios, settings),
    },
    optional={
        "goal": st.dictionaries(st.sampled_from(["acc_tradeoff", "budget"]), values),
        "refine": st.dictionaries(st.sampled_from(["share", "rounds", "steps", "lr"]), values),
        "initial": st.fixed_dictionaries({"point": st.lists(with_ratio, max_size=2)}),
    },
)
sections = st.sampled_from(["task", "space", "goal", "refine", "initial", "else"])
faulty = st.builds(lambda space, key, value: space | {key: value}, spaces, sections, values)
tomls = (spaces | faulty).map(lambda space: "\n".join(f"{key} = {toml(value)}" for key, value in space.items()))
cuts = st.tuples(st.integers(0, len(TOML)), st.integers(0, 30), st.text(max_size=5))
mutilated = cuts.map(lambda cut: TOML[: cut[0]] + cut[2] + TOML[cut[0] + cut[1] :])


@given(st.text() | tomls | mutilated)
@example("\ufeff" + TOML)
@example(TOML.replace("0.5", "1" + "0" * 400))
def test_a_space_or_a_user_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_text(text, encoding="utf-8", newline="")
    try:
        space = space_reader.read(file)
        params = space.parameters_for(LENET)
        for queued in space.initial_params(LENET):
            assert all(value in params[key] for key, value in queued.items())
    except UserError as error:
        message = str(error)
    else:
        message = f"{file}: no error"
    assert message.startswith(f"{file}: ")
    assert len(message.splitlines()) == 1
