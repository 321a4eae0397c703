"""The parts of plug-ins as objects: their ``build`` methods, called where trainkit makes its own parts."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

from trainkit.config.schema.base import Section
from trainkit.errors import Problem, ProblemsError, TrainkitError
from trainkit.plugins import explain


def build_part(part: Section, *arguments: Any, key: str) -> Any:
    """What the part's ``build`` makes. Raises ProblemsError with the line of its code where that fails."""
    try:
        return part.build(*arguments)  # type: ignore[attr-defined]
    except TrainkitError:
        raise
    except Exception as error:
        message = explain(error) or f"{type(error).__name__}: {error}"
        given = ", ".join(map(str, arguments))
        raise ProblemsError([Problem(f"{message} (in build({given}) of {name_of(part)})", key)]) from error


def build_module(part: Section, *arguments: Any, key: str) -> nn.Module:
    """The ``nn.Module`` of a layer or a model. Raises ProblemsError where it makes something else."""
    made = build_part(part, *arguments, key=key)
    if not isinstance(made, nn.Module):
        message = f"build of {name_of(part)} has to return an nn.Module, got {type(made).__name__}"
        raise ProblemsError([Problem(message, key)])
    lazy = next((type(one).__name__ for one in made.modules() if isinstance(one, LazyModuleMixin)), None)
    if lazy is not None:
        message = f"{name_of(part)} has a {lazy} without a size; give it one, from the input_shape that build gets"
        raise ProblemsError([Problem(message, key)])
    return made


def name_of(part: Section) -> str:
    return str(part.type)  # type: ignore[attr-defined]
