"""What was probably meant, where the command line itself is refused: a setting of the config, or a group's command."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import typer

from trainkit.wording import enumerated

UsageError: type[Any] = typer.BadParameter.__mro__[1]
"""Of the click that typer brings along, which has no public name."""
_OTHER_NAMES = {"learning_rate": "lr", "batch": "batch_size", "bs": "batch_size", "wd": "weight_decay"}


def add_hint(error: Any, groups: Mapping[str, Any]) -> None:
    """Add to the message of a ``UsageError`` what to write instead, where that is known; no words of pydantic's.

    Args:
        groups: the groups of commands, by name.
    """
    if hasattr(error.__cause__, "errors"):  # typer takes a value of an option through pydantic
        wanted = re.match("Input should be ([^,]*)", error.message)
        got = error.__cause__.errors()[0]["input"]
        error.message = f"has to be {wanted[1]}, got {got!r}" if wanted else error.message.removeprefix("Value error, ")
    elif (name := getattr(error, "option_name", None)) is not None:
        if _takes_set(error) and (keys := _keys_of(name.lstrip("-").replace("-", "_"))):
            error.possibilities = None
            error.message += f"; it is a setting of the config: {' or '.join(f'--set {key}=...' for key in keys)}"
    elif found := re.match(r"Got unexpected extra argument\S* \((.*)\)$", error.message, re.DOTALL):
        words = found[1].split()
        if _takes_set(error) and all(re.match(r"\w[\w.\[\]]*=", word) for word in words):
            error.message += f"; settings of the config: {' '.join(f'--set {word}' for word in words)}"
    elif found := re.match(r"No such command '([\w-]+)'\.$", error.message):
        homes = [f"`trainkit {name} {found[1]}`" for name, group in groups.items() if found[1] in group.commands]
        if homes:
            error.message += f" There is {enumerated(homes)}."


def _takes_set(error: Any) -> bool:
    return error.ctx is not None and any(parameter.name == "set_" for parameter in error.ctx.command.params)


def _keys_of(name: str) -> list[str]:
    """The keys of the config of this name, the sections before what lies deeper in them."""
    from trainkit.config.help import homes

    name = _OTHER_NAMES.get(name, name)
    places = sorted(
        {where for where, _ in homes().get(name, ()) if "[" not in where}, key=lambda where: where.count(".")
    )
    nearest = [where for where in places if where.count(".") == places[0].count(".")]
    return [f"{where}.{name}".lstrip(".") for where in nearest[:3]]
