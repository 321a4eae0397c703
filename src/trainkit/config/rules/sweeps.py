"""The rules of a sweep's file that need no more than the file: what it searches, and whether its parts go together."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainkit.config.help.messages import shown
from trainkit.config.schema import sweep as schema
from trainkit.config.schema.base import parse_duration
from trainkit.config.spaces import Choice, Space, assign, is_below, spaces_of
from trainkit.config.text.nodes import KeyPath, PathError, parse_path
from trainkit.config.text.writer import flow
from trainkit.wording import closest, counted


@dataclass(frozen=True)
class Mistake:
    """A rule that a sweep breaks, at a path of its file."""

    path: KeyPath
    message: str
    key: str | None = None
    """As messages name it."""
    is_key: bool = False
    """The key is the mistake, not its value."""


KINDS = ("log_uniform", "uniform", "int", "choice")
_OTHER_KINDS = {
    **dict.fromkeys(("values", "value", "categorical", "grid", "options", "one_of"), "choice"),
    **dict.fromkeys(("log", "loguniform", "logspace", "log_float"), "log_uniform"),
    **dict.fromkeys(("float", "range", "interval", "min", "max", "low", "high", "quniform"), "uniform"),
    **dict.fromkeys(("integer", "randint", "int_uniform", "ints"), "int"),
}
"""What other programs call them."""
_SAME_SAMPLES = (
    *("features", "columns", "weight", "missing", "missing_values", "unseen", "scale_target"),
    *("color", "background", "value_range", "cache_size"),
)
"""Keys of ``dataset`` that leave the samples and the splits as they are."""
_OF_SWEEP = {
    "seed": "trials would differ by luck; `confirm: {top: 3, seeds: 3}` trains the best again with other seeds",
    "name": "the sweep names its runs itself",
    "device": "it is no setting; `parallel: {devices: [...]}` shares the trials out",
    "checkpoint": "it changes what is kept, not what is trained; the objective chooses the best checkpoint",
    "logging": "it changes what is written down, not what is trained",
    "export": "it changes what is exported, not what is trained",
    "distributed": "nothing in it changes what is trained",
}
"""Sections that are not searched, and why."""


# --- each entry of `search` ----------------------------------------------------------------------------------------


def check_search(search: Any) -> list[Mistake]:
    """The entries of ``search`` (as plain data) that are no space, or one with nothing to search."""
    if not isinstance(search, Mapping):
        return []
    return [mistake for key, entry in search.items() if (mistake := _check_entry(str(key), entry)) is not None]


def _check_entry(key: str, entry: Any) -> Mistake | None:
    at: KeyPath = ("search", key)
    try:
        parse_path(key)
    except PathError as error:
        return Mistake(at, f"{error}, got {key[:60]!r}", is_key=True)
    if isinstance(entry, list):
        both = "{choice: [...]}, {log_uniform: [low, high]}, {uniform: ...} or {int: ...}"
        return Mistake(at, f"a list can be choices or bounds, got {shown(entry)}; write {both}", key)
    if not isinstance(entry, Mapping) or not entry:
        return Mistake(at, f"expected one of {', '.join(KINDS)}, got {shown(entry)}; {_fixed(key)}", key)
    kinds = [kind for kind in KINDS if kind in entry]
    if len(kinds) > 1:
        return Mistake(
            (*at, kinds[1]), f"expected one of {' and '.join(kinds)}, got both; remove one", key, is_key=True
        )
    if not kinds:
        return _no_kind(key, entry)
    values, where = entry[kinds[0]], (*at, kinds[0])
    if kinds[0] == "choice":
        return _check_choice(key, values, where)
    if not isinstance(values, list) or len(values) != 2 or not all(map(_is_number, values)):
        return None  # the schema says what is wrong
    low, high = values
    if low == high:
        return Mistake(where, f"one value is nothing to search, got {shown(values)}; {_fixed(key)}", key)
    if low > high:
        return Mistake(where, f"the lowest number comes first, got {shown(values)}; write {shown([high, low])}", key)
    logarithmic = kinds[0] == "log_uniform" or entry.get("log") is True
    if logarithmic and low <= 0:
        instead = "uniform" if kinds[0] == "log_uniform" else "log: false"
        message = f"numbers with a logarithm are above 0, got {shown(low)}; raise it, or take {instead}"
        return Mistake((*where, 0), message, key)
    return _check_step(key, entry, low, high, logarithmic)


def _check_step(key: str, entry: Mapping[str, Any], low: float, high: float, logarithmic: bool) -> Mistake | None:
    step, at = entry.get("step"), ("search", key, "step")
    if not isinstance(step, int | float) or step <= 0 or "log_uniform" in entry:
        return None
    if logarithmic and step != 1:
        return Mistake(at, f"log draws numbers in no even distance, got step {shown(step)}; remove one", key)
    count = math.floor((high - low) / step + 1e-9)
    last = low + count * step
    if not math.isclose(last, high, rel_tol=1e-9):
        fitting = " or ".join(dict.fromkeys(f"{value:g}" for value in (last, last + step) if value > low))
        message = f"no number of steps leads from {low:g} to {high:g}, got step {shown(step)}; end at {fitting}"
        return Mistake(at, message, key)
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_choice(key: str, values: Any, at: KeyPath) -> Mistake | None:
    if not isinstance(values, list):
        return Mistake(at, f"expected a list of values, got {shown(values)}", key)
    if len(values) < 2:
        what = "there is nothing to choose from" if not values else "one value is nothing to search"
        return Mistake(at, f"{what}, got {shown(values)}; {_fixed(key)}", key)
    seen: dict[str, int] = {}
    for index, value in enumerate(values):
        before = seen.setdefault(flow(value), index)
        if before != index:
            return Mistake((*at, index), f"a value that stands here twice, got {shown(value)}; remove one", key)
    return None


def _no_kind(key: str, entry: Mapping[str, Any]) -> Mistake:
    at: KeyPath = ("search", key)
    name = next(iter(entry))
    if meant := _OTHER_KINDS.get(str(name).lower()) or closest(str(name), KINDS):
        example = f"{{choice: {shown(entry[name])}}}" if isinstance(entry[name], list) else "{choice: [...]}"
        how = example if meant == "choice" else f"{{{meant}: [low, high]}}"
        message = f"expected one of {', '.join(KINDS)}, got {name}; write {how}"
        return Mistake((*at, str(name)), message, key, is_key=True)
    if all(isinstance(value, Mapping) for value in entry.values()):
        message = f"a path is written in one piece; write `{key}.{name}: {{...}}`"
        return Mistake((*at, str(name)), message, key, is_key=True)
    return Mistake((*at, str(name)), f"expected one of {', '.join(KINDS)}, got {name}", key, is_key=True)


def _fixed(key: str) -> str:
    return f"what every trial has in common stands under `set` ({key}: ...)"


# --- the whole file ------------------------------------------------------------------------------------------------


def check(sweep: schema.Sweep, *, doubtful: Collection[str], overrides: Sequence[str] = ()) -> list[Mistake]:
    """Every rule that the parts of a sweep break.

    Args:
        doubtful: sections that hold a mistake already: what they lack is no other one.
        overrides: of the config, from the command line.
    """
    space = spaces_of(sweep)
    found = [*_budget(sweep, space), *_sampler(sweep, space), *_parallel(sweep)]
    if not sweep.search:
        example = "optimizer.lr: {log_uniform: [0.001, 0.3]}"
        message = f"there is nothing to search; write paths of the config, such as {example}"
        found.append(Mistake(("search",), message, "search"))
    found = [one for one in found if one.path[0] not in doubtful or (one.path[0] == "search" and one.path[1:])]
    return [*_paths(sweep, space, overrides), *_inside_choices(space), *found]


def _paths(sweep: schema.Sweep, spaces: Mapping[str, Space], overrides: Sequence[str]) -> Iterator[Mistake]:
    seen: dict[KeyPath, str] = {}
    fixed = {text.partition("=")[0].removesuffix("+"): f"--set {text}" for text in overrides}
    set_ = [one for key, value in sweep.set.items() for one in assign(key, value)]
    for key in sweep.search:
        space = spaces[key]
        at: KeyPath = ("search", key)
        first = seen.setdefault(parse_path(key), key)
        if first != key:
            yield Mistake(at, f"this path is searched twice, the other time as {first}; remove one", key, is_key=True)
        if (why := _not_comparable(key, sweep.objective)) is not None:
            yield Mistake(at, why, key, is_key=True)
        values = space.values if isinstance(space, Choice) else (space.low,)
        written = {one.key for value in values for one in assign(key, value)}
        for one in set_:
            if any(one.key == path or is_below(one.key, path) for path in written):
                message = "what is searched cannot be set too; remove it here, or under `search`"
                root = next(name for name in sweep.set if one.key == name or is_below(one.key, name))
                yield Mistake(("set", root, *one.below), message, one.key, is_key=True)
        for other, text in fixed.items():
            if any(other == path or is_below(other, path) for path in written):
                yield Mistake(at, f"what is searched cannot be set too, got {text}; leave one out", key, is_key=True)


def _not_comparable(key: str, objective: str) -> str | None:
    """Why trials that differ in this path cannot be compared."""
    section, _, rest = key.partition(".")
    section = section.partition("[")[0]
    if section in _OF_SWEEP:
        return f"{section} is not searched: {_OF_SWEEP[section]}"
    own = rest.partition(".")[0].partition("[")[0]
    if section == "dataset" and own not in _SAME_SAMPLES:
        return (
            "trials on other samples cannot be compared: they are not measured on the same validation split; "
            "`set` has them alike in all trials"
        )
    by_loss = objective in ("val_loss", "train_loss") and (section == "loss" or key.startswith(_CHANGE_LOSS))
    if by_loss:
        return (
            f"trials with other losses cannot be compared by {objective}, which is measured with the loss itself; "
            "take another objective, such as val_accuracy, val_log_loss or val_rmse"
        )
    return None


_CHANGE_LOSS = ("dataset.weight", "dataset.scale_target")


def _inside_choices(space: Mapping[str, Space]) -> Iterator[Mistake]:
    """Values in the choices of a section that are searched on their own too, and would be replaced."""
    for key, choices in space.items():
        below = [other for other in space if is_below(other, key)]
        for index, value in enumerate(choices.values if isinstance(choices, Choice) else ()):
            for other in below:
                inner = parse_path(other)[len(parse_path(key)) :]
                if _has(value, inner):
                    message = f"{other} is searched on its own, which would replace this value; remove one"
                    yield Mistake(("search", key, "choice", index, *inner), message, key, is_key=True)


def _has(value: Any, path: KeyPath) -> bool:
    for piece in path:
        known = value if isinstance(value, Mapping) else range(len(value)) if isinstance(value, list) else ()
        if piece not in known:
            return False
        value = value[piece]
    return True


def _budget(sweep: schema.Sweep, space: Mapping[str, Space]) -> Iterator[Mistake]:
    budget, trials = sweep.budget, sweep.budget.trials
    grid = isinstance(sweep.sampler, schema.Grid)
    if trials is None and budget.minutes is None and not grid:
        yield Mistake(("budget",), "there is no end; write `budget: {trials: 40}`, or {minutes: 120}", "budget")
    size = math.prod(values.size for values in space.values())
    if grid and trials is not None and trials < size < math.inf:
        message = (
            f"the grid has {counted(int(size), 'combination')}, got {trials}; raise it, leave it out, "
            "or take sampler: random"
        )
        yield Mistake(("budget", "trials"), message, "budget.trials")
    if sweep.confirm is not None and trials is not None and sweep.confirm.top > trials:
        message = f"there are only {counted(trials, 'trial')} to confirm, got {sweep.confirm.top}; lower it"
        yield Mistake(("confirm", "top"), message, "confirm.top")
    if isinstance(sweep.pruner, schema.Median) and trials is not None and sweep.pruner.startup >= trials:
        message = (
            f"no trial would be pruned: the first {sweep.pruner.startup} are trained to their end, and there are "
            f"{trials}; write {{type: median, startup: {max(1, trials // 4)}}}"
        )
        yield Mistake(("pruner", "startup"), message, "pruner.startup")


def _sampler(sweep: schema.Sweep, space: Mapping[str, Space]) -> Iterator[Mistake]:
    for key, values in space.items():
        if isinstance(sweep.sampler, schema.Grid) and math.isinf(values.size):
            can_step = isinstance(sweep.search[key], schema.Uniform)
            how = "give it a step, or take {choice: [...]}" if can_step else "take {choice: [...]}"
            message = f"a grid needs values that can be counted; {how}, or sampler: random"
            yield Mistake(("search", key), message, key)
        if isinstance(sweep.sampler, schema.CmaEs) and isinstance(values, Choice):
            yield Mistake(("search", key), "cmaes searches numbers only; take sampler: tpe, gp or random", key)
    if isinstance(sweep.sampler, schema.CmaEs) and len(space) == 1:
        yield Mistake(("sampler",), "cmaes needs two paths or more, got 1; take tpe, gp or random", "sampler")


def _parallel(sweep: schema.Sweep) -> Iterator[Mistake]:
    parallel = sweep.parallel
    devices = parallel.devices or []
    if len(devices) > parallel.trials:
        message = (
            f"{len(devices)} devices for {counted(parallel.trials, 'trial')} at a time; write trials: {len(devices)}"
        )
        yield Mistake(("parallel", "devices"), message, "parallel.devices")
    for index, device in enumerate(devices):
        if device in devices[:index]:
            message = f"named twice, got {device}; `trials` may be more than the devices, which are taken in turn"
            yield Mistake(("parallel", "devices", index), message, "parallel.devices")


def check_pruner(sweep: schema.Sweep, space: Mapping[str, Space], *, epochs: int) -> list[Mistake]:
    """Whether the pruner can stop a trial at all. ``epochs``: of a trial, where they are not searched."""
    pruner = sweep.pruner
    if isinstance(pruner, schema.NoPruner):
        return []
    longest = space.get("training.epochs")
    if longest is not None:
        epochs = int(max(longest.values) if isinstance(longest, Choice) else longest.high)
    first = parse_duration(pruner.min).value
    if first < epochs:
        return []
    message = f"nothing is left to prune: trials have {counted(epochs, 'epoch')}, got {shown(pruner.min)}; lower it"
    return [Mistake(("pruner", "min"), message, "pruner.min")]


def notes(sweep: schema.Sweep) -> list[str]:
    """What is no mistake, but may surprise."""
    sampler, trials = sweep.sampler, sweep.budget.trials
    if isinstance(sampler, schema.Tpe | schema.Gp) and trials is not None and sampler.startup >= trials:
        return [
            f"{sampler.type} draws its first {counted(sampler.startup, 'trial')} at random, and there are {trials}: "
            f"this is a random search; sampler: {{type: {sampler.type}, startup: {max(1, trials // 4)}}} starts earlier"
        ]
    return []
