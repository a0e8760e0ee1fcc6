"""Reads and writes .conf files, which give each layer's ratio and pruner.

The format is that of torch7-pruner, whose reader takes the first two lines and ignores the rest:

    1,4,8              layers: 1-based position in the nn.Sequential, or qualified name (layer1.0.conv1)
    0.5,0.7,0.95       their ratios: the fraction of a layer's weights that is removed, in [0, 1)
    mag,mag,taylor1    their pruners; this line may be absent
    # rounds = 4       notes, TOML after the '#': how the point was made and what it measured
"""

import io
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tune_prune.common import files
from tune_prune.common.entrypoints import is_handed_over
from tune_prune.common.errors import UserError, format_names
from tune_prune.common.parsing import MAX_KEY, parse_toml, read_bytes
from tune_prune.common.toml_writer import format_key, format_value

UNITS = ("mode", "granularity", "multiple_of", "min_width")
"""The notes that say what a ratio counts: with others, the same ratios remove other weights."""


@dataclass(frozen=True)
class Conf:
    """The content of a .conf file, in its order: ratios in [0, 1) and pruners by layer label, and notes by key.

    `pruners` names the same layers as `ratios`, or is None where the file has no line of pruners.
    """

    ratios: Mapping[str, float]
    pruners: Mapping[str, str] | None = None
    notes: Mapping[str, object] = field(default_factory=dict)


def read(path: Path) -> Conf:
    """Reads a .conf file. Raises a `UserError` that names file and line, what is wrong and what would be right."""
    try:
        data = read_bytes(path)
    except OSError as error:
        raise UserError(f"{path}: cannot read it ({error.strerror}); name a readable .conf file") from error
    except ValueError as error:
        raise UserError(f"{path}: no .conf file ({error}); a .conf is text: layers, ratios, pruners") from error
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: not UTF-8 text; a .conf is text: layers, ratios, pruners") from error
    return parse(text, str(path))


def parse(text: str, source: str) -> Conf:
    """Parses the text of a .conf. A `UserError` begins with `source` and the line: `best.conf:2: ...`."""
    # only \n, \r\n and \r end a line, as in every editor; str.splitlines has eight more line ends
    lines = [line.strip() for line in io.StringIO(text.removeprefix("\ufeff"), newline=None)]
    first, second, third = [*lines, "", "", ""][:3]
    if not first or first.startswith("#"):
        raise UserError(f"{source}:1: no layers here; line 1 holds them, separated by commas, like 1,4,8")
    if not second or second.startswith("#"):
        raise UserError(f"{source}:2: no ratios here; line 2 holds one for each layer, like 0.5,0.7,0.95")
    labels = [_name(label.strip(), "layer label", f"{source}:1") for label in first.split(",")]
    label, times = Counter(labels).most_common(1)[0]
    if times > 1:
        raise UserError(f"{source}:1: layer {label} is named {times} times; name each layer once")
    values = _split_by_layer(second, "ratios", labels, f"{source}:2")
    ratios = {label: _ratio(value, label, f"{source}:2") for label, value in values.items()}
    pruners = None
    if third and not third.startswith("#"):
        names = _split_by_layer(third, "pruners", labels, f"{source}:3")
        pruners = {label: _name(name, "pruner", f"{source}:3") for label, name in names.items()}
    return Conf(ratios, pruners, _notes(lines[2:]))


def check_named(conf: Conf, source: str) -> None:
    """Raises a `UserError` where the notes name a model, data or a function that came from Python as an object."""
    task = conf.notes.get("task")
    named = {key: conf.notes.get(key) for key in ("model", "data")} | dict(task if isinstance(task, Mapping) else {})
    texts = {key: value if isinstance(value, list) else [value] for key, value in named.items()}
    lost = [key for key, values in texts.items() if any(map(is_handed_over, values))]
    if lost:
        advice = f'write the address of what makes it into the conf, # {lost[0]} = "package.module:function"'
        raise UserError(
            f"{source}: cannot be replayed, its {format_names(lost)} came from Python as an object; {advice}"
        )


def write(path: Path, conf: Conf) -> None:
    """Writes a .conf file, whole or not at all. Raises as `dump` does, and `OSError`."""
    files.write_text(path, dump(conf))


def note_path(file: Path, conf: Path, root: Path) -> str:
    """A file's path as a .conf notes it: relative to the .conf's folder where the file lies in `root`, else absolute.

    `root` is the folder that is moved or sent with the .conf in it, such as a run directory.
    """
    file = file.absolute()
    return os.path.relpath(file, conf.parent) if file.is_relative_to(root.absolute()) else str(file)


def noted_path(noted: str, conf: Path) -> Path:
    """The path that `note_path` noted in this .conf."""
    return conf.parent / noted


def dump(conf: Conf) -> str:
    """Makes the text of a .conf; `parse` makes an equal `Conf` of it, every double included.

    Raises `UserError` for what no .conf can hold (a layer named 'a,b', a ratio of 1), `ValueError` where ratios and
    pruners name different layers, `TypeError` for a note that TOML has no type for. Lone surrogates in notes become
    '?', since TOML forbids them.
    """
    if not conf.ratios:
        raise UserError("a .conf needs at least one layer, got none")
    if conf.pruners is not None and conf.pruners.keys() != conf.ratios.keys():
        raise ValueError(f"pruners for layers {list(conf.pruners)}, but ratios for {list(conf.ratios)}")
    labels = [_name(label, "layer label", "a .conf") for label in conf.ratios]
    ratios = [repr(_ratio(repr(float(ratio)), label, "a .conf")) for label, ratio in conf.ratios.items()]
    lines = [",".join(labels), ",".join(ratios)]
    if conf.pruners is not None:
        lines.append(",".join(_name(conf.pruners[label], "pruner", "a .conf") for label in labels))
    lines += [f"# {format_key(key)} = {format_value(value)}" for key, value in conf.notes.items()]
    return "\n".join(lines) + "\n"


def check_label(label: str, where: str) -> None:
    """Raises a `UserError` that begins with `where` for the label of a layer that no .conf can hold."""
    _name(label, "layer label", where)


def _name(name: str, kind: str, where: str) -> str:
    """Returns the name of a layer or pruner if it can stand in a line separated by commas, else raises."""
    if not name:
        raise UserError(f"{where}: empty {kind}; separate them by single commas, like 1,4,8")
    if not name.isprintable() or set(name) & set(" ,") or name.startswith("#") or len(name) > MAX_KEY:
        raise UserError(f"{where}: bad {kind} {name[:60]!r}; it may hold no space, comma or leading '#'")
    return name


def _split_by_layer(line: str, kind: str, labels: list[str], where: str) -> dict[str, str]:
    """Splits a line into its fields, one for each layer, without the spaces around them."""
    fields = [text.strip() for text in line.split(",")]
    if len(fields) != len(labels):
        raise UserError(f"{where}: {len(fields)} {kind} for {len(labels)} layers; give one for each layer")
    return dict(zip(labels, fields, strict=True))


def _ratio(text: str, label: str, where: str) -> float:
    """Returns the ratio in a text if it is in [0, 1), else raises."""
    rule = f"{where}: ratio must be in [0, 1)"
    try:
        ratio = float(text)
    except ValueError:
        raise UserError(f"{rule}, got {text[:60]!r}, which is no number, for layer {label}") from None
    if not 0 <= ratio < 1:  # NaN too
        raise UserError(f"{rule}, got {text[:60]} for layer {label}")
    return ratio


def _notes(lines: list[str]) -> dict[str, object]:
    """Parses the comment lines that are `key = value` in TOML; all other lines are remarks without meaning."""
    notes: dict[str, object] = {}
    for line in lines:
        comment = line.removeprefix("#").strip()
        if not line.startswith("#") or comment.startswith("["):  # '# [x]' would be a table, not key = value
            continue
        try:
            notes.update(parse_toml(comment))
        except ValueError:
            continue
    return notes
