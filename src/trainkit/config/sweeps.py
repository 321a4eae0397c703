"""Loading a sweep: its file becomes a checked ``Sweep``, with the config of each trial."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trainkit.config.help.messages import explain
from trainkit.config.help.shipped import find_config, find_sweep, hint_for_missing
from trainkit.config.loading import LoadedConfig, without
from trainkit.config.places import Places
from trainkit.config.rules import sweeps as rules
from trainkit.config.schema.base import safe_name
from trainkit.config.schema.sweep import Sweep
from trainkit.config.spaces import Choice, Range, Space, assign, spaces_of
from trainkit.config.sweep_file import KEY_COLUMN, Candidate, Setting, SweepFile
from trainkit.config.text.nodes import KeyPath, Node, format_path
from trainkit.config.text.reader import is_missing, read_file
from trainkit.config.text.writer import flow
from trainkit.errors import ConfigError, Place, Problem
from trainkit.wording import better, closest

__all__ = ["Candidate", "Choice", "LoadedSweep", "Range", "Space", "load_sweep"]

_NEEDED: dict[str, Any] = {"config": "-", "objective": "-", "search": {}}
"""What a sweep needs, and what stands for it where it is missing, so that the rest can still be checked."""


@dataclass(frozen=True)
class LoadedSweep:
    """A valid sweep of a valid config, whose searched values are valid one by one."""

    sweep: Sweep
    path: Path
    text: str
    """The file as the user wrote it."""
    base: LoadedConfig
    """The config with what every trial has in common."""
    objective: str
    """The metric that trials are compared by; each trial's best checkpoint is the best in it."""
    maximize: bool
    space: Mapping[str, Space]
    """By config path, sections before what is below them."""
    notes: tuple[str, ...]
    """What was guessed, and what may surprise."""
    _file: SweepFile = field(repr=False)

    @property
    def name(self) -> str:
        """The name of the sweep: its own, or the file's made safe."""
        return self.sweep.name if self.sweep.name is not None else safe_name(self.path.stem)

    def trial(self, values: Mapping[str, object]) -> LoadedConfig:
        """The config of a trial with these values by config path; where one is left out, the config's own.

        Raises:
            ConfigError: they don't go together, or are not searched.
        """
        if unknown := sorted(values.keys() - self.space.keys()):
            raise ConfigError([Problem("the sweep does not search it", key, Place(str(self.path))) for key in unknown])
        texts = [one.text for key in self.space if key in values for one in assign(key, values[key])]
        return self._file.load(self.base.path, [*self._file.texts, *texts])

    def candidates(self) -> list[Candidate]:
        """Each bound and each choice once."""
        return list(self._file.candidates(self.space))

    def load(self, candidate: Candidate) -> LoadedConfig:
        """The config with this value. Raises ConfigError."""
        return self._file.load(self.base.path, [*self._file.texts, *(one.text for one in candidate.settings)])

    def locate(self, problems: Iterable[Problem], candidate: Candidate | None = None) -> list[Problem]:
        """Mistakes of the config of a candidate (None: of the base), with their places in the sweep's file."""
        return self._file.locate(problems, candidate)

    def problem(self, at: KeyPath, message: str) -> Problem:
        """A mistake at a path of the sweep's file."""
        return self._file.problem(at, message, format_path(at), is_key=False)

    def error(self, problems: Iterable[Problem]) -> ConfigError:
        """Mistakes in the order of the files, each once."""
        return ConfigError(_in_order(problems, str(self.path)))


def load_sweep(path: str | Path, overrides: Sequence[str] = ()) -> LoadedSweep:
    """Read a sweep, check it, its config, and each of the values that it searches.

    Args:
        path: a file, or the name of a shipped sweep where there is no such file.
        overrides: of the config of every trial (``training.epochs=5``), after what the file sets.

    Raises:
        ConfigError: with all mistakes of the file; those of the config have their places there.
    """
    path, note = find_sweep(Path(path))
    if is_missing(path):
        raise ConfigError([Problem("there is no such file", place=Place(str(path)))])
    tree, text, problems = read_file(path)
    _refuse_config(tree)
    file = SweepFile(tree, path, Places(tree, {}))
    sweep, found, mistaken = _validate(file)
    doubtful = {str(path[0]) for path in mistaken}
    doubtful |= {near for key in doubtful if (near := closest(key, Sweep.model_fields))}
    broken = dict.fromkeys(str(path[1]) for path in mistaken if path[0] == "search" and path[1:])
    problems += found
    space = spaces_of(sweep)
    problems += file.placed(rules.check(sweep, doubtful=doubtful, overrides=overrides))
    base, more = _load_base(file, sweep, overrides)
    problems += more
    if base is not None:
        for candidate in file.candidates(space):
            try:
                file.load(base.path, [*file.texts, *(one.text for one in candidate.settings)])
            except ConfigError as error:
                problems += file.locate(error.problems, candidate)
        problems += _unknown_paths(file, base.path, broken)
        if "pruner" not in doubtful:
            problems += file.placed(rules.check_pruner(sweep, space, epochs=base.config.training.epochs))
    if problems or base is None:
        raise ConfigError(_in_order(problems, str(path)))
    notes = (*([] if note is None else [note]), *base.notes, *rules.notes(sweep))
    objective = sweep.objective
    return LoadedSweep(sweep, path, text, base, objective, better(objective) == "max", space, notes, file)


def _refuse_config(tree: Node) -> None:
    """Raises ConfigError for a config, which has no ``search``."""
    assert isinstance(tree.value, dict)
    sections = [key for key in ("model", "dataset", "training") if key in tree.value]
    if sections and "search" not in tree.value and "config" not in tree.value:
        message = (
            "this is a config, not a sweep, which names the config to improve (`config: FILE`) and the paths to search "
            "(`search:`); `trainkit train` trains a config"
        )
        raise ConfigError([Problem(message, sections[0], tree.value[sections[0]].key_place)])


def _validate(file: SweepFile) -> tuple[Sweep, list[Problem], list[KeyPath]]:
    """The sweep without what is mistaken in it, the mistakes, and the paths that were left out."""
    data = file.tree.plain()
    bad = rules.check_search(data.get("search"))
    problems, mistaken = file.placed(bad), [one.path[:2] for one in bad]
    data = without(data, mistaken)
    try:
        sweep = Sweep.model_validate(data)
    except ValidationError as error:
        found = explain(error.errors(include_url=False, include_input=False), data, Sweep)
        problems += [
            file.problem(path, _with_hint(path, message, data), _shown(path), is_key=is_key)
            for path, is_key, message in found
        ]
        whole = {"search": 2, "sampler": 1, "pruner": 1}
        mistaken += [path[: whole.get(str(path[0]), len(path))] for path, _, _ in found if path]
        sweep = Sweep.model_validate(_NEEDED | without(data, mistaken))
    return sweep, problems, [path for path in mistaken if path]


def _unknown_paths(file: SweepFile, base: Path, keys: Iterable[str]) -> list[Problem]:
    """Of entries that cannot be searched as they are: those whose path the config does not have, either."""
    problems = []
    for key in keys:
        settings = tuple(file.settings_of(key, None, ("search", key)))
        try:
            file.load(base, [*file.texts, *(one.text for one in settings)])
        except ConfigError as error:
            unknown = [one for one in error.problems if one.place is not None and one.place.column == KEY_COLUMN]
            problems += file.locate(unknown, Candidate(("search", key), settings))
    return problems


def _with_hint(path: KeyPath, message: str, data: Any) -> str:
    """What to write in place of a short form that there is not: ``budget: 40``."""
    value = data.get(path[0]) if len(path) == 1 else None
    if path in (("budget",), ("parallel",)) and isinstance(value, int) and not isinstance(value, bool):
        return f"{message.partition(';')[0]}; write {{trials: {value}}}"
    if path == ("confirm",) and not isinstance(value, dict):
        return f"{message.partition(';')[0]}; write {{top: 3, seeds: 3}}"
    return message


def _shown(path: KeyPath) -> str | None:
    """A path of the sweep's file; one of the config stands for its entry under ``search`` and ``set``."""
    if len(path) > 1 and path[0] in ("search", "set"):
        return str(path[1]) + (f": {format_path(path[2:])}" if path[2:] else "")
    return format_path(path) or None


def _load_base(file: SweepFile, sweep: Sweep, overrides: Sequence[str]) -> tuple[LoadedConfig | None, list[Problem]]:
    """The config with what all trials have in common, and the mistakes in it.

    Where only what the sweep sets is mistaken, the config without it: to see what the searched values are like.
    """
    entry = file.tree.find(("config",))
    if entry is None or sweep.config == _NEEDED["config"]:
        return None, []
    path = file.path.parent / sweep.config
    if is_missing(path):
        path, _ = find_config(Path(sweep.config))
        if is_missing(path):
            where = file.path.parent / sweep.config
            message = f"there is no such file, got {sweep.config!r}; {hint_for_missing(where)}"
            return None, [Problem(message, "config", entry.place)]
    file.base = str(path)
    try:
        base = file.load(path, [])
    except ConfigError as error:
        base, alone = None, error.problems
        if alone[0].place == Place(str(path)) and alone[0].key is None:  # the file cannot be read
            return None, [replace(alone[0], message=f"{path}: {alone[0].message}", key="config", place=entry.place)]
    else:
        alone = ()
    problems: list[Problem] = []
    for settings, more in ((list(file.set_values(sweep)), overrides), (_objective(file, sweep, base), ())):
        before = file.settings, file.overrides
        file.settings, file.overrides = [*file.settings, *settings], [*file.overrides, *more]
        try:
            base = file.load(path, file.texts)
            alone = ()
        except ConfigError as error:
            problems += [one for one in file.locate(error.problems) if one not in alone]
            file.settings, file.overrides = before
    return base, [*alone, *problems]


def _objective(file: SweepFile, sweep: Sweep, base: LoadedConfig | None) -> list[Setting]:
    """The best checkpoint of a trial is the best in the objective."""
    checkpoint = None if base is None else base.config.checkpoint
    if file.tree.find(("objective",)) is None or checkpoint is None or checkpoint.monitor == sweep.objective:
        return []
    at: KeyPath = ("objective",)
    monitor = Setting(f"checkpoint.monitor={flow(sweep.objective)}", ("checkpoint", "monitor"), at)
    automatic = Setting("checkpoint.mode=auto", ("checkpoint", "mode"), at)
    return [monitor] if checkpoint.mode == "auto" else [monitor, automatic]


def _in_order(problems: Iterable[Problem], own: str) -> list[Problem]:
    """The sweep's own file from top to bottom, then the others; each mistake once."""
    unique = {(str(problem), problem.place): problem for problem in problems}

    def rank(problem: Problem) -> tuple[bool, str, int, int]:
        place = problem.place or Place("")
        return (place.file != own, place.file, place.line or 0, place.column or 0)

    return sorted(unique.values(), key=rank)
