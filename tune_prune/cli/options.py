"""Options that commands share, and decorators that group options and that make them from a dataclass's flags."""

import copy
import functools
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, Any, TypeVar, get_args

import typer

from tune_prune.common.flags import Setting, declared_settings, parse_settings
from tune_prune.common.import_path import refuse_code
from tune_prune.tasks.settings import MEASURING, SEARCHING, TASK, TaskSettings

Command = TypeVar("Command", bound=Callable[..., Any])


def grouped(panels: Mapping[str, str]) -> Callable[[Command], Command]:
    """A decorator that puts a command's parameters into panels: their names, separated by spaces, by panel.

    Raises ValueError for a name that is no parameter.
    """

    def decorate(command: Command) -> Command:
        parameters = inspect.signature(command).parameters
        for panel, names in panels.items():
            for name in names.split():
                if name not in parameters:
                    raise ValueError(f"{command.__name__} has no parameter {name!r}")
                kind, option = get_args(parameters[name].annotation)
                option = copy.copy(option)  # other commands may have the same
                option.rich_help_panel = panel
                command.__annotations__[name] = Annotated[kind, option]
        return command

    return decorate


def takes_settings(
    kind: type, panels: Sequence[str], leave_out: Collection[str] = ()
) -> Callable[[Command], Callable[..., Any]]:
    """A decorator that replaces a command's parameter `settings` by the flags that a dataclass declares.

    The command is called with the settings that the user gave, by name; it has no flag for those in `leave_out`.
    `--help` shows what has no panel, and then the panels in this order; every panel must be one of them.
    """

    def decorate(command: Command) -> Callable[..., Any]:
        flags = [_make_parameter(one) for name, one in declared_settings(kind).items() if name not in leave_out]
        order = [None, *panels]
        parameters: list[inspect.Parameter] = []
        for parameter in inspect.signature(command).parameters.values():
            parameters += flags if parameter.name == "settings" else [parameter]
        parameters.sort(key=lambda parameter: order.index(get_args(parameter.annotation)[1].rich_help_panel))

        @functools.wraps(command)
        def run(**options: Any) -> Any:
            values = dict.fromkeys(leave_out) | {flag.name: options.pop(flag.name) for flag in flags}
            given = parse_settings(kind, values)
            return command(settings=given, **options)

        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def takes_task(*, training: bool = True, leave_out: Collection[str] = ()) -> Callable[[Command], Callable[..., Any]]:
    """A decorator that replaces a command's parameter `settings` by the flags of a task; see `takes_settings`.

    Without `training`, by those alone that decide what is measured of a model.
    """
    others = () if training else (name for name in declared_settings(TaskSettings) if name not in MEASURING)
    return takes_settings(TaskSettings, [TASK], {*leave_out, *others, *SEARCHING})


def _make_parameter(setting: Setting) -> inspect.Parameter:
    """Makes the parameter that typer makes an option from; the default is None, or False for a switch."""
    switch = setting.type is bool
    kind = bool if switch else (setting.type if setting.flag.parse is None else str) | None
    option = typer.Option(setting.option, help=setting.flag.help, rich_help_panel=setting.flag.panel)
    default = False if switch else None
    return inspect.Parameter(
        setting.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
    )


NAME_OR_ADDRESS = "Built-in name or package.module:factory."
Model = Annotated[str, typer.Option(help=NAME_OR_ADDRESS)]
Data = Annotated[str, typer.Option(help=NAME_OR_ADDRESS)]
BatchSize = Annotated[int, typer.Option(min=1, help="Training samples in a batch.")]
TestBatchSize = Annotated[
    int | None,
    typer.Option(min=1, help="Test samples at a time, unless the data comes in batches."),
]
GRANULARITIES = (
    "What goes as one: weight, filter, neuron, 2:4, channel, head, block, block+channel, channel+weight, channel+2:4."
)
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
NoCode = Annotated[
    bool,
    typer.Option("--no-code", callback=refuse_code, help="Import no package.module:name that a file names."),
]
Force = Annotated[bool, typer.Option("--force", help="Go on with a model that is no better than chance.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")]
