"""Writes the text of a space from its parts, as `space_reader` reads it."""

import json
from collections.abc import Mapping, Sequence

Ratios = Mapping[str, tuple[float, float]]
"""The lowest and the highest ratio by pattern of layers."""


def write(
    task: Mapping[str, object],
    ratios: Ratios,
    exclude: Sequence[str],
    pruners: Sequence[str],
    how: Mapping[str, object],
    steps: int,
    lr: tuple[float, float],
    refine: float,
    at_most: Mapping[str, float] | None = None,
    at_least: Mapping[str, float] | None = None,
) -> str:
    """The text of a space file with these settings; `how` are further keys of [space]."""
    lines = ["[task]", *(f"{key} = {json.dumps(value)}" for key, value in task.items()), "", "[space]"]
    lines += [f"pruner = {json.dumps(list(pruners))}", f"exclude = {json.dumps(list(exclude))}", "rounds = 3"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in how.items()]
    lines += [f"steps = {steps}", f"final_steps = {2 * steps}", f"lr = {{low = {lr[0]}, high = {lr[1]}, log = true}}"]
    lines += ["temperature = 2", "", "[space.ratio]"]
    lines += [f"{json.dumps(key)} = {{low = {low}, high = {high}}}" for key, (low, high) in ratios.items()]
    lines += ["", "[refine]", f"share = {refine}", "rounds = 8", f"steps = {40 * steps}", f"lr = {lr[1]}", ""]
    return "\n".join(lines) + _write_goal(at_most or {}, at_least or {})


def _write_goal(at_most: Mapping[str, float], at_least: Mapping[str, float]) -> str:
    """The text of [goal] with limits on costs and further metrics; empty without any."""
    lines = []
    for key, by_name in {"at_most": at_most, "at_least": at_least}.items():
        values = ", ".join(f"{json.dumps(name)} = {float(limit)!r}" for name, limit in by_name.items())
        lines += [f"{key} = {{{values}}}"] if values else []
    return "\n".join(["[goal]", *lines, ""]) if lines else ""
