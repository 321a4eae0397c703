"""The file of a sweep as overrides of the config, and the places of mistakes that these make."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trainkit.config.loading import LoadedConfig, load_config
from trainkit.config.places import Places
from trainkit.config.rules import sweeps as rules
from trainkit.config.schema.sweep import Sweep
from trainkit.config.spaces import Choice, Space, assign, is_below
from trainkit.config.text.nodes import KeyPath, Node, PathError, parse_path
from trainkit.config.text.overrides import override_source
from trainkit.errors import Place, Problem

KEY_COLUMN = len("--set ") + 1
"""Where mistakes in the path of an override stand."""


@dataclass(frozen=True)
class Setting:
    """A value of the sweep's file as an override of the config."""

    text: str
    """``optimizer.lr=0.1``"""
    key: KeyPath
    """Of the config."""
    at: KeyPath
    """Where it stands in the sweep's file."""

    @property
    def name(self) -> str:
        """As places name it: ``--set optimizer.lr=0.1``."""
        return override_source("--set", self.text).name


@dataclass(frozen=True)
class Candidate:
    """One searched value, tried with the config as it is otherwise: a bound of a range, or a choice."""

    at: KeyPath
    """Where the value stands in the sweep's file."""
    settings: tuple[Setting, ...]


@dataclass
class SweepFile:
    """The file of a sweep, and what it sets in the config of every trial."""

    tree: Node
    path: Path
    places: Places
    settings: list[Setting] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)
    base: str = ""
    """The file of the config."""

    @property
    def texts(self) -> list[str]:
        """The overrides that all trials have in common."""
        return [*(one.text for one in self.settings), *self.overrides]

    def load(self, path: Path, texts: Sequence[str]) -> LoadedConfig:
        return load_config(path, overrides=texts)

    def placed(self, mistakes: Iterable[rules.Mistake]) -> list[Problem]:
        return [self.problem(one.path, one.message, one.key, is_key=one.is_key) for one in mistakes]

    def problem(self, path: KeyPath, message: str, key: str | None, *, is_key: bool) -> Problem:
        problem = self.places.locate_at(path, Problem(message, key), is_key=is_key)
        return problem if problem.place is not None else problem.at(Place(str(self.path)))

    def set_values(self, sweep: Sweep) -> Iterator[Setting]:
        """What the file sets in every trial, a path that cannot be read included: loading says what is wrong."""
        for key, value in sweep.set.items():
            yield from self.settings_of(key, value, ("set", key))

    def settings_of(self, key: str, value: Any, at: KeyPath) -> Iterator[Setting]:
        for one in assign(key, value):
            try:
                path = parse_path(key)
            except PathError:
                path = (key,)
            yield Setting(one.text, (*path, *one.below), (*at, *one.below))

    def candidates(self, space: Mapping[str, Space]) -> Iterator[Candidate]:
        """Each bound and each choice, with each choice of a section around it and a value of each path below it."""
        for key in space:
            above = [other for other in space if is_below(key, other)]
            below = [other for other in space if is_below(other, key)]
            first = [setting for other in below for setting in self.values_of(other, space[other])[0]]
            around: list[tuple[Setting, ...]] = [()]
            for other in above:
                around = [(*before, *of) for before in around for of in self.values_of(other, space[other])]
            for own in self.values_of(key, space[key]):
                for before in around:
                    yield Candidate(own[0].at if len(own) == 1 else own[0].at[:-1], (*before, *own, *first))

    def values_of(self, key: str, space: Space) -> list[list[Setting]]:
        """The settings of each bound or choice."""
        entry = self.tree.find(("search", key))
        assert entry is not None
        assert isinstance(entry.value, dict)
        kind = next(name for name in ("choice", "int", "uniform", "log_uniform") if name in entry.value)
        values = space.values if isinstance(space, Choice) else (space.low, space.high)
        return [list(self.settings_of(key, value, ("search", key, kind, index))) for index, value in enumerate(values)]

    def locate(self, problems: Iterable[Problem], candidate: Candidate | None = None) -> list[Problem]:
        """Mistakes of a config that the sweep changed, with the places of what it wrote."""
        settings = [*self.settings, *(() if candidate is None else candidate.settings)]
        by_name = {setting.name: setting for setting in settings}
        return [self.located(problem, by_name, candidate) for problem in problems]

    def located(self, problem: Problem, by_name: Mapping[str, Setting], candidate: Candidate | None) -> Problem:
        places = [problem.place, *problem.also]
        blamed = next((by_name[place.file] for place in places if place is not None and place.file in by_name), None)
        message = problem.message
        if blamed is not None or candidate is not None:  # lines of the config
            message = re.sub(r"\(line (\d+)\)", rf"({self.base}:\1)", message)
        for name, setting in by_name.items():
            if name in message and (written := self.places.place(setting.at)) is not None:
                message = message.replace(name, f"line {written.line}")
        also = [self.place_of(place, by_name) for place in problem.also]
        if blamed is None and candidate is not None:  # of the config with the value, though not of the value alone
            return replace(
                problem,
                message=message,
                place=self.places.place(candidate.at),
                also=tuple(place for place in (problem.place, *also) if place is not None),
            )
        if problem.place is None or problem.place.file not in by_name:
            return replace(problem, message=message, also=tuple(also))
        setting = by_name[problem.place.file]
        if setting.at[2:3] in (("uniform",), ("log_uniform",)) and "expected a whole number" in message:
            log = ", log: true" if setting.at[2] == "log_uniform" else ""
            message = f"{message.partition(', got ')[0]}; take {{int: [low, high]{log}}}"
        place = self.place_in(setting, problem)
        key = "objective" if setting.at == ("objective",) else problem.key
        return replace(problem, message=message, place=place, key=key, also=tuple(dict.fromkeys(also)))

    def place_of(self, place: Place, by_name: Mapping[str, Setting]) -> Place:
        return (self.places.place(by_name[place.file].at) or place) if place.file in by_name else place

    def place_in(self, setting: Setting, problem: Problem) -> Place | None:
        """The place of a mistake in what an override was made from: its path, its value, or something in this."""
        assert problem.place is not None
        path = parse_path(problem.key) if problem.key is not None else ()
        if problem.place.column == KEY_COLUMN and setting.at[0] != "objective":
            value = 4 if setting.at[0] == "search" else 2
            at = setting.at[: len(setting.at) - max(0, len(setting.key) - len(path))]
            return self.places.place(at if len(at) > value else setting.at[:2], is_key=True)
        inside = path[len(setting.key) :] if path[: len(setting.key)] == setting.key else ()
        is_key = "unknown key" in problem.message or "no such knob" in problem.message
        return self.places.place((*setting.at, *inside), is_key=is_key and bool(inside))
