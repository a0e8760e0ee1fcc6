"""Models of Hugging Face by address: `transformers:BertForSequenceClassification(name='bert-base-uncased')`."""

from typing import Any

from torch import nn

from tune_prune.common.entrypoints import parse_arguments
from tune_prune.common.errors import UserError, format_names
from tune_prune.tasks.user_code import user_code

PREFIX = "transformers:"


def is_hugging_face_model(name: str) -> bool:
    """Whether a name begins with `transformers:` and has a class of models behind it."""
    return name.startswith(PREFIX) and name.partition("(")[0].removeprefix(PREFIX)[:1].isupper()


def make_model(name: str) -> nn.Module:
    """Makes the model `transformers:CLASS(key=value)`.

    With `name`, the model of that name is loaded by `CLASS.from_pretrained`, from a folder, the local cache, or Hugging
    Face's hub, and the other arguments go there. Without, the arguments are those of the class's configuration, and the
    weights are random. Raises a `UserError`.
    """
    import transformers  # here, since the import takes seconds

    class_name, arguments = name.partition("(")[0].removeprefix(PREFIX), parse_arguments(name)
    found: Any = getattr(transformers, class_name, None)
    if not hasattr(found, "from_pretrained"):
        raise UserError(f"model {name!r}: transformers has no model {class_name!r}")
    with user_code("model", name):
        if "name" in arguments:
            return _check(name, found.from_pretrained(arguments.pop("name"), **arguments))
        return _check(name, found(_make_config(name, found, arguments)))


def _make_config(name: str, found: Any, arguments: dict[str, object]) -> Any:
    """The configuration of a class of models, which itself would take keys that it does not know."""
    if getattr(found, "config_class", None) is None:
        raise UserError(f"model {name!r}: give name=, a folder or a name of Hugging Face's hub")
    known = found.config_class()
    if unknown := [key for key in arguments if not hasattr(known, key)]:
        raise UserError(f"model {name!r}: {found.config_class.__name__} has no {format_names(unknown)}")
    return found.config_class(**arguments)


def _check(name: str, made: object) -> nn.Module:
    if not isinstance(made, nn.Module):
        raise UserError(f"model {name!r} is a {type(made).__name__}; name a class of models")
    return made
