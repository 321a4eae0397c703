"""Plug-ins: a user's own layers, models and other parts, offered by ``--plugin``, Python or an installed package.

What a file names only selects among what is offered: it is never imported, and never a path.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import os
import re
import shlex
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from trainkit.errors import TrainkitError, UserError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "trainkit.plugins"
"""The entry point group of installed plug-ins: ``acme = "acme.trainkit_parts:plugin"``."""
PART = re.compile(r"(?:val_)?([A-Za-z_]\w*)\.([A-Za-z_]\w*)")
"""How a config names a part of a plug-in: ``acme.SqueezeExcite``; a metric is watched as ``val_acme.TopTwo``."""

_ACTIVE: ContextVar[tuple[Plugin, ...]] = ContextVar("plugins", default=())
_FOLDERS: set[str] = set()
"""Files and folders of the plug-ins of this process: where an error comes from their code, its message says so."""


class Plugin:
    """The parts that a module offers under its name: each is a ``trainkit.Section`` with a ``build`` method.

    ``docs/extending.md`` has the contract of each kind.
    """

    KINDS: ClassVar[tuple[str, ...]] = ("layers", "models", "losses", "metrics", "transforms", "datasets")

    def __init__(
        self,
        name: str,
        *,
        layers: Sequence[type] = (),
        models: Sequence[type] = (),
        losses: Sequence[type] = (),
        metrics: Sequence[type] = (),
        transforms: Sequence[type] = (),
        datasets: Sequence[type] = (),
    ) -> None:
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise UserError(f"Plugin({name!r}): its name begins the names of its parts: letters, digits and _ only")
        self.name = name
        kinds = zip(self.KINDS, (layers, models, losses, metrics, transforms, datasets), strict=True)
        self.parts: dict[str, tuple[type, ...]] = {kind: tuple(given) for kind, given in kinds}
        names = [getattr(part, "__name__", repr(part)) for given in self.parts.values() for part in given]
        for part in names:
            if names.count(part) > 1:
                raise UserError(f"Plugin({name!r}): two parts are called {part}; each needs a name of its own")
        self.module: str = sys._getframe(1).f_globals.get("__name__", "__main__")
        _FOLDERS.update(map(str, _home(sys.modules.get(self.module))))

    def __repr__(self) -> str:
        return f"Plugin({self.name!r})"

    @property
    def version(self) -> str:
        """``__version__`` of its module, or the version of the installed package; empty where neither is there."""
        found = getattr(sys.modules.get(self.module), "__version__", None)
        if found is None:
            from importlib.metadata import packages_distributions, version

            for dist in packages_distributions().get(self.module.partition(".")[0], ()):
                return version(dist)
        return str(found or "")

    def describe(self) -> dict[str, str]:
        """Name, version, file and SHA-256 of all its files: what a run and a checkpoint keep of it."""
        files = files_of(self.module)
        sha = hashlib.sha256()
        for path in files:
            sha.update(path.read_bytes())
        return {
            "name": self.name,
            "version": self.version,
            "module": self.module,
            "sha256": sha.hexdigest() if files else "",
        }


# --- which are loaded --------------------------------------------------------------------------------------------


def active() -> tuple[Plugin, ...]:
    """The plug-ins whose parts a config may name now."""
    return _ACTIVE.get()


@contextmanager
def using(plugins: Iterable[Plugin | str]) -> Iterator[None]:
    """Let configs name the parts of these plug-ins too, given as themselves or by the names of their modules.

    Raises:
        UserError: there is no such plug-in, or two have the same name.
    """
    found = list(active())
    for given in plugins:
        plugin = load_plugin(given) if isinstance(given, str) else given
        if not isinstance(plugin, Plugin):
            raise UserError(f"plugins: expected trainkit.Plugin or the name of a module, got {type(plugin).__name__}")
        if plugin in found:
            continue
        if any(other.name == plugin.name for other in found):
            raise UserError(f"two plug-ins have the name {plugin.name}, the second is of {plugin.module}; load one")
        found.append(plugin)
    token = _ACTIVE.set(tuple(found))
    try:
        yield
    finally:
        _ACTIVE.reset(token)


def command() -> str:
    """``trainkit --plugin acme``: how a command begins that is to know what this one knows."""
    return shlex.join(["trainkit", *plugin_options()])


def plugin_options() -> list[str]:
    """The options that give a child process the same plug-ins."""
    return [word for plugin in active() for word in ("--plugin", plugin.module)]


def installed() -> list[Plugin]:
    """All plug-ins of installed packages."""
    from importlib.metadata import entry_points

    return [_load_installed(entry) for entry in entry_points(group=GROUP)]


def installed_for(data: Any, overrides: Sequence[str] = ()) -> list[Plugin]:
    """The installed plug-ins whose parts a config as plain data names, besides those that are loaded already."""
    words = [word for text in overrides for word in re.split(r"[^\w.]+", text.partition("=")[2])]
    names = {*_named(data), *_named(words)} - {plugin.name for plugin in active()}
    if not names:
        return []
    from importlib.metadata import entry_points  # it takes longer to import than the rest of this file

    offered = {entry.name: entry for entry in entry_points(group=GROUP)}
    return [_load_installed(offered[name]) for name in sorted(names & offered.keys())]


def _named(value: Any, key: str = "") -> Iterator[str]:
    """The names of plug-ins in front of the parts that a config names."""
    if isinstance(value, str) and (match := PART.fullmatch(value)):
        yield match[1]
    elif isinstance(value, Mapping):
        for name, item in value.items():
            if not (key == "dataset" and name != "type"):  # names of files look alike
                yield from _named(item, str(name))
    elif isinstance(value, list):
        for item in value:
            yield from _named(item, key)


def used_by(data: Any, plugins: Iterable[Plugin]) -> list[Plugin]:
    """Those of the plug-ins whose parts a config as plain data names."""
    names = set(_named(data))
    return [plugin for plugin in plugins if plugin.name in names]


# --- loading -----------------------------------------------------------------------------------------------------


def load_plugin(name: str) -> Plugin:
    """The plug-in of a module in the current folder, of an entry point, or of an installed module, in this order.

    Raises:
        UserError: there is none, its code fails, or it has no ``plugin = trainkit.Plugin(...)``.
    """
    is_file = name.endswith(".py") and os.path.isfile(name)
    if is_file or not re.fullmatch(r"[A-Za-z_][\w]*(\.[A-Za-z_]\w*)*", name):
        hint = f"; write {Path(name).stem}, in its folder" if is_file else ""
        raise UserError(f"--plugin {name}: expected the name of a module, as after `import`{hint}")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)  # last, so that a file of the user's never hides a library
    spec = PathFinder.find_spec(name.partition(".")[0], [here])
    if spec is None:
        from importlib.metadata import entry_points

        for entry in entry_points(group=GROUP, name=name):
            return _load_installed(entry)
    return _found_in(_import(name, spec), "plugin", name=name)


def _load_installed(entry: EntryPoint) -> Plugin:
    return _found_in(_import(entry.module, None), entry.attr or "plugin", name=entry.name)


def _found_in(module: ModuleType, attribute: str, *, name: str) -> Plugin:
    found = getattr(module, attribute, None)
    if not isinstance(found, Plugin):
        where = getattr(module, "__file__", None) or module.__name__
        raise UserError(f"--plugin {name}: {where} has no `{attribute} = trainkit.Plugin(...)`; add it at its end")
    return found


def _import(name: str, spec: ModuleSpec | None) -> ModuleType:
    """Import a module by its name, or the one at the top of it as ``spec`` says; it takes the place of no other."""
    top = name.partition(".")[0]
    try:
        if spec is not None and spec.loader is not None and top not in sys.modules:
            sys.modules[top] = importlib.util.module_from_spec(spec)
            _FOLDERS.update(map(str, _home(sys.modules[top])))
            try:
                spec.loader.exec_module(sys.modules[top])
            except BaseException:
                del sys.modules[top]
                raise
        return importlib.import_module(name)
    except TrainkitError as error:
        raise UserError(f"{blame(error) or f'--plugin {name}'}: {error}") from error
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            hint = "the current folder has no such module, and none of this name is installed"
            raise UserError(f"--plugin {name}: {hint}; go to its folder, or install it") from error
        raise UserError(f"{blame(error) or f'--plugin {name}'}: {error}") from error
    except SyntaxError as error:
        raise UserError(f"{error.filename}:{error.lineno}: SyntaxError: {error.msg} (--plugin {name})") from error
    except Exception as error:
        raise UserError(f"{explain(error) or f'{type(error).__name__}: {error}'} (--plugin {name})") from error


# --- whose code --------------------------------------------------------------------------------------------------


def files_of(module: str) -> list[Path]:
    """The files of a plug-in, sorted: all of its package, or the module and what it takes from modules beside it."""
    start = sys.modules.get(module)
    homes = _home(start)
    if not homes or homes[0].is_dir():
        return sorted(path for home in homes for path in home.rglob("*.py"))
    folder, found, todo = homes[0].parent, set(homes), [start]
    while todo:
        for value in list(vars(todo.pop()).values()):
            name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
            other = sys.modules.get(name) if isinstance(name, str) else None
            file = getattr(other, "__file__", None)
            path = Path(file).resolve() if file else None
            inside = path is not None and path.is_relative_to(folder) and "site-packages" not in path.parts
            if path is not None and inside and path.suffix == ".py" and path not in found:
                found.add(path)
                todo.append(other)
    return sorted(found)


def _home(module: ModuleType | None) -> list[Path]:
    """The folder of the package that a module is in, or its file; none for one that was typed in."""
    if module is None:
        return []
    top = sys.modules.get(module.__name__.partition(".")[0], module)
    if paths := list(getattr(top, "__path__", ())):
        return [Path(path).resolve() for path in paths]
    file = getattr(module, "__file__", None)
    return [Path(file).resolve()] if file else []


def blame(error: BaseException) -> str | None:
    """``acme.py:12``: the innermost line of a plug-in that an error went through; None where there is none."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = os.path.realpath(frame.filename)
        if any(path == home or path.startswith(home + os.sep) for home in _FOLDERS):
            return f"{_shown(path)}:{frame.lineno}"
    return None


def place_of(part: type) -> str | None:
    """``acme.py:12``: where the class of a part begins; None where nobody knows."""
    try:
        return f"{_shown(os.path.realpath(inspect.getfile(part)))}:{inspect.getsourcelines(part)[1]}"
    except (OSError, TypeError):
        return None


def _shown(path: str) -> str:
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def explain(error: BaseException) -> str | None:
    """``acme.py:12: TypeError: ...`` for an error in the code of a plug-in, None for others."""
    place = blame(error)
    return None if place is None else f"{place}: {type(error).__name__}: {error}"
