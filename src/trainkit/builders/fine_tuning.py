"""``fine_tuning:`` as objects, and in words."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from trainkit.config.schema import Config
from trainkit.config.schema.base import parse_duration
from trainkit.config.schema.model import Whiten
from trainkit.engine import Freezing, covering_names, duration_to_steps, frozen_until
from trainkit.wording import listed


def frozen_parameters(config: Config, model: nn.Module) -> dict[str, int | None]:
    """The parameters that are frozen at first, by name: which item of ``unfreeze`` ends that; None: none of them.

    Raises:
        ProblemsError: ``fine_tuning`` does not fit the model.
    """
    spec = config.fine_tuning
    if spec.freeze == "none":
        return {}
    return frozen_until(model, freeze=spec.freeze, unfreeze=[item.modules for item in spec.unfreeze])


def build_freezing(config: Config, until: Mapping[str, int | None], *, steps_per_epoch: int) -> Freezing | None:
    """What is frozen at each step of the run; None where nothing ever is.

    Args:
        until: ``frozen_parameters``.
    """
    spec = config.fine_tuning
    if not until and spec.batch_norm != "frozen":
        return None
    durations = [parse_duration(item.at) for item in spec.unfreeze]
    steps = [duration_to_steps(item.value, item.unit, steps_per_epoch=steps_per_epoch) for item in durations]
    ends = {name: None if number is None else steps[number] for name, number in until.items()}
    return Freezing(ends, spec.batch_norm)


def until_text(config: Config, number: int | None) -> str:
    """``until 3ep``, or ``for the whole run``."""
    if number is None:
        return "for the whole run"
    at = config.fine_tuning.unfreeze[number].at
    return f"until {at}ep" if isinstance(at, int) else f"until {at}"


def describe_frozen(config: Config, model: nn.Module, until: Mapping[str, int | None]) -> str | None:
    """The line of a run: how many parameters train at first, what is frozen, and until when; None where nothing is."""
    if not until:
        return "batch norm keeps its statistics" if config.fine_tuning.batch_norm == "frozen" else None
    parameters = dict(model.named_parameters())
    total = sum(parameter.numel() for parameter in parameters.values())
    trained = sum(p.numel() for name, p in parameters.items() if p.requires_grad and name not in until)
    ends: dict[int | None, dict[str, nn.Parameter]] = {}
    for name, number in until.items():
        ends.setdefault(number, {})[name] = parameters[name]
    frozen = [
        f"{listed(covering_names(model, inside), limit=6, quoted=False)} {until_text(config, number)}"
        for number, inside in sorted(ends.items(), key=lambda item: (item[0] is None, item[0]))
    ]
    return f"{trained:,} of {total:,} parameters train at first; frozen: {'; '.join(frozen)}"


def freezes_random_weights(config: Config, model: nn.Module, frozen: Mapping[str, int | None]) -> bool:
    """Whether matrices or filters are frozen that come from no file that the model names, and from no training images.

    Args:
        frozen: ``frozen_parameters``.
    """
    if getattr(config.model, "weights", "none") != "none":
        return False
    names = [name for name, parameter in model.named_parameters() if parameter.dim() > 1]
    if isinstance(getattr(config.model, "init", None), Whiten):
        del names[0]
    return any(name in frozen for name in names)
