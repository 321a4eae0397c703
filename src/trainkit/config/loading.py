"""Loading: a file or plain data, and overrides, become a checked ``Config`` with the origin of each value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trainkit.config.auto_transforms import with_auto_transforms, without_auto
from trainkit.config.data_paths import at_data_root, make_absolute
from trainkit.config.help.introspect import child_value
from trainkit.config.help.messages import explain
from trainkit.config.help.shipped import find_config, hint_for_missing
from trainkit.config.places import Places
from trainkit.config.rules import check
from trainkit.config.schema import Config
from trainkit.config.schema.base import Section, safe_name
from trainkit.config.schema.extended import config_class
from trainkit.config.schema.model_defaults import with_model_defaults
from trainkit.config.text.data import DICT, read_data
from trainkit.config.text.extends import with_bases
from trainkit.config.text.nodes import KeyPath, Node, format_path, parse_path
from trainkit.config.text.overrides import apply_overrides
from trainkit.config.text.reader import is_missing, read_file
from trainkit.errors import ConfigError, Place, Problem, UserError
from trainkit.plugins import Plugin, installed_for, using
from trainkit.wording import counted, listed


@dataclass(frozen=True)
class Origin:
    """Where a value came from: ``default``, a file and line, or an override."""

    kind: str
    """``default``, ``file`` or ``override``."""
    place: Place | None = None
    model: str | None = None
    """The type of the model that a default comes with."""

    def __str__(self) -> str:
        if self.place is None:
            return self.kind if self.model is None else f"{self.kind} of {self.model}"
        return f"{self.place.file}:{self.place.line}" if self.place.line is not None else self.place.file


@dataclass(frozen=True)
class LoadedConfig:
    """A valid config, its data at absolute paths, with its text and the origin of each value."""

    config: Config
    path: Path
    text: str
    """The file as the user wrote it; plain data as YAML."""
    overrides: tuple[str, ...]
    """The options as typed: ``--set optimizer.lr=0.1``."""
    origins: Mapping[str, Origin]
    """By key path, one entry for each value of ``resolved()``."""
    files: tuple[str, ...]
    """The file, and the files that it extends."""
    notes: tuple[str, ...]
    """What was guessed on the way here."""
    _places: Places = field(repr=False)

    @property
    def name(self) -> str:
        """The name of runs: the config's, or the file's made safe."""
        return self.config.name if self.config.name is not None else safe_name(self.path.stem)

    def resolved(self) -> dict[str, Any]:
        """Every value as plain data, defaults included; loads again to the same config."""
        return dict(to_plain(self.config))

    def at_data_root(self, folder: str | Path | None) -> LoadedConfig:
        """With its data in another folder, see ``config.at_data_root``."""
        return replace(self, config=at_data_root(self.config, folder))

    def locate(self, problem: Problem) -> Problem:
        """The problem with the place of its key, or of the nearest key above it that the user wrote."""
        return self._places.locate(problem)

    def where(self, key: str) -> str:
        """Where the value of a key was written, as messages about another key name it: ``line 14``, ``default``."""
        return self._places.where(parse_path(key))


def load_config(
    source: str | Path | Mapping[str, Any],
    *,
    config_dir: str | Path | None = None,
    overrides: Sequence[str] = (),
    unset: Sequence[str] = (),
    plugins: Sequence[Plugin | str] = (),
) -> LoadedConfig:
    """Read a config, apply overrides and defaults, check it. Raises ConfigError with all mistakes in it.

    Args:
        source: a file, or the name of a shipped config where there is no such file; or the config itself, as plain
            data. Its mistakes are located by their keys.
        config_dir: of plain data: the folder that its paths are relative to; None for the current one.
        plugins: plug-ins whose parts the config may name, or the names of their modules.
    """
    with using(plugins), ExitStack() as stack:
        return _load_config(source, config_dir, overrides, unset, stack)


def _load_config(
    source: str | Path | Mapping[str, Any],
    config_dir: str | Path | None,
    overrides: Sequence[str],
    unset: Sequence[str],
    stack: ExitStack,
) -> LoadedConfig:
    note = None
    chosen: list[str] = []
    if isinstance(source, Mapping):
        file = Path(config_dir or "") / DICT
        tree, text, problems, files = with_bases(*read_data(source, file))
    elif config_dir is not None:
        raise UserError(f"config_dir is for a config given as a dict; the paths of {source} are relative to its folder")
    else:
        file, note = find_config(Path(source))
        if is_missing(file):
            raise ConfigError([Problem(f"there is no such file; {hint_for_missing(file)}", place=Place(str(file)))])
        node, text, problems = read_file(file)
        _refuse_sweep(node)
        tree, text, problems, files = with_bases(node, text, problems)
    stack.enter_context(using(installed_for(tree.plain(), overrides)))
    tree, more, removed = apply_overrides(tree, overrides, unset)
    problems += more
    places = Places(tree, removed)
    data, added = with_model_defaults(tree.plain())
    data, auto = without_auto(data, added)
    config, found = _validate(data)
    for where, is_key, message in found:
        problem = places.locate_at(where, Problem(message, format_path(where) or None), is_key=is_key)
        problems.append(problem if problem.place is not None else problem.at(Place(str(file))))
    if auto and config is not None:
        config, hindrances, chosen = with_auto_transforms(config)
        problems += [places.locate(problem) for problem in hindrances]
    problems += _broken_rules(config, data, places, [where for where, _, _ in found])
    texts = (*(f"--unset {key}" for key in unset), *(f"--set {item}" for item in overrides))
    if problems or config is None:
        raise ConfigError(_in_order(list(dict.fromkeys(problems)), (*files, *texts)))
    if file.name == DICT and config.name is None:
        config = config.model_copy(update={"name": f"{config.dataset.type}_{config.model.type}"})
    config, notes = make_absolute(config, tree, file)
    notes = [*([] if note is None else [note]), *notes, *chosen]
    return LoadedConfig(config, file, text, texts, _origins(config, tree, added), files, tuple(notes), places)


def _refuse_sweep(node: Node) -> None:
    """Raises ConfigError for the file of a sweep."""
    assert isinstance(node.value, dict)
    if "search" in node.value and "config" in node.value and not {"model", "dataset"} & node.value.keys():
        message = f"this is a sweep, which names the config in `config`; `trainkit sweep {node.source.name}` runs it"
        raise ConfigError([Problem(message, "search", node.value["search"].key_place)])


def check_pieces(loaded: LoadedConfig, *, ranks: int, run: Path | None = None) -> None:
    """See that the processes of a run can share the pieces of a batch evenly.

    Args:
        run: which goes on, and has its number of pieces from its start.

    Raises:
        UserError: they cannot.
    """
    pieces, key = loaded.config.training.accumulation_steps, "training.accumulation_steps"
    if pieces % ranks == 0:
        return
    fitting = listed([number for number in range(1, pieces + 1) if pieces % number == 0])
    message = f"{ranks} processes cannot share {counted(pieces, 'piece')} of a batch evenly; take"
    if run is not None:
        more = -(-pieces // ranks) * ranks
        raise UserError(
            f"{run}: {message} this number of processes: {fitting}; or other pieces, which changes the result: "
            f"trainkit resume {run} --nproc {ranks} --set {key}={more} --allow-change {key}"
        )
    message += f" a multiple of {ranks} here, which changes the result, or this number of processes: {fitting}"
    raise ConfigError([loaded.locate(Problem(message, key))])


def config_from_dict(data: dict[str, Any], *, where: str) -> Config:
    """The config that a checkpoint or a run stores; ``where`` names it in messages. Raises ConfigError."""
    with using(installed_for(data)):
        config, found = _validate(data)
    if config is None:
        raise ConfigError([Problem(message, format_path(path) or None, Place(where)) for path, _, message in found])
    return config


def _validate(data: Any) -> tuple[Config | None, list[tuple[KeyPath, bool, str]]]:
    try:
        return config_class().model_validate(data), []
    except ValidationError as error:
        return None, explain(error.errors(include_url=False, include_input=False), data)


def _broken_rules(config: Config | None, data: Any, places: Places, mistaken: list[KeyPath]) -> list[Problem]:
    """The violated rules between fields. Where some fields are mistaken, rules on the other fields still apply."""
    if config is None:
        config, _ = _validate(without(data, mistaken))
        if config is None:
            return []
    problems = []
    for finding in check(config, lambda key: places.where(parse_path(key))):
        paths = [parse_path(key) for key in finding.keys]
        if any(path[: len(bad)] == bad or bad[: len(path)] == path for path in paths for bad in mistaken):
            continue
        problems.append(places.locate(Problem(finding.message, finding.key, others=finding.keys[1:])))
    return problems


def without(data: Any, mistaken: list[KeyPath]) -> Any:
    """The plain config without the keys that hold a mistake, so that their defaults take their place."""
    data = deepcopy(data)
    for path in mistaken:
        while path and (isinstance(path[-1], int) or path[-1] == "type"):
            path = path[:-1]  # an item is dropped with its list, a type with its choice
        holder = data
        for piece in path[:-1]:
            holder = child_value(holder, piece)
        if isinstance(holder, dict) and path:
            holder.pop(path[-1], None)
    return data


def _in_order(problems: list[Problem], sources: Sequence[str]) -> list[Problem]:
    """Own file first, then the files that it extends, then the overrides; each from top to bottom."""

    def rank(problem: Problem) -> tuple[int, int, int]:
        place = problem.place
        if place is None:
            return (0, 0, 0)
        source = sources.index(place.file) if place.file in sources else len(sources)
        return (source, place.line or 0, (place.column or 0) if place.line is not None else 0)

    return sorted(problems, key=rank)


def to_plain(value: Any) -> Any:
    """A section as plain dicts and lists; values that are None by default are left out."""
    if isinstance(value, Section):
        fields = type(value).model_fields
        names = sorted(fields, key=lambda name: name != "type")  # stable: `type` first, the rest as in the schema
        plain = {name: to_plain(getattr(value, name)) for name in names}
        return {name: item for name, item in plain.items() if item is not None or fields[name].default is not None}
    if isinstance(value, list):
        return [to_plain(item) for item in value]
    return value


def _origins(config: Config, tree: Node, added: Mapping[str, Any]) -> dict[str, Origin]:
    """Where each value came from. ``added``: the defaults that come with the model."""
    origins: dict[str, Origin] = {}

    def visit(value: Any, path: KeyPath, node: Node | None) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                if node is not None and isinstance(node.value, str) and key == "type":
                    child: Node | None = node
                else:
                    child = node.value.get(key) if node is not None and isinstance(node.value, dict) else None
                visit(item, (*path, key), child)
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            for index, item in enumerate(value):
                items = node.value if node is not None and isinstance(node.value, list) else []
                visit(item, (*path, index), items[index] if index < len(items) else None)
        elif node is None:
            section = added.get(str(path[0]))
            of_model = path[1] in section if isinstance(section, dict) else section is not None
            origins[format_path(path)] = Origin("default", model=config.model.type if of_model else None)
        else:
            origins[format_path(path)] = Origin("override" if node.source.is_override else "file", node.place)

    visit(to_plain(config), (), tree)
    return origins
