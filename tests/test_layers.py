"""Imports go down only, and never in a circle: the floors of the design, read from the sources."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "trainkit"
FLOORS = [
    {"config", "system"},
    {"data", "models", "runtime"},
    {"engine", "checkpoints", "recorders", "evaluation", "findings", "exports", "reports"},
    {"builders"},
    {"workflows"},
    {"cli", "web", "api", "callbacks"},
]
EVERYWHERE = {"_version", "errors", "plugins", "wording"}
"""They stand below the floors: every module may import them, and they import nothing of the floors."""
TOP = {"__init__", "__main__"}
"""They stand above the floors, and nobody imports them."""
NEVER = {
    0: {"torch", "torchvision", "typer", "rich"},
    1: {"pydantic", "typer", "rich"},
    2: {"pydantic", "typer", "rich"},
    3: {"typer", "rich"},
    4: {"typer", "rich"},
    5: set(),
}
NEIGHBORS = {
    "engine": set(),
    "checkpoints": {"engine"},
    "recorders": {"engine"},
    "evaluation": {"engine"},
    "findings": {"engine", "evaluation", "recorders"},
    "exports": {"engine"},
    "reports": {"engine", "evaluation", "findings", "recorders"},
}
"""Of floor 2: whom each may import there."""
NO_DOOR = {"", "cli", "web", "workflows", "config.schema", "data"}
"""Folders whose files are named one by one: there is one file for each command, section or kind of thing."""
SIDE_DOORS = {
    *("findings.facts", "findings.layer_stats", "findings.probes", "findings.relation"),
    *("workflows.bench.speed", "workflows.lr_find.search"),
}
"""They need torch, which the doors of their folders do not: ``runs list`` and ``bench`` come through those."""
MODULES = sorted(path for path in SOURCE.rglob("*.py") if "templates" not in path.parts)


def name_of(path: Path) -> str:
    """``data/images/cache.py`` is ``data.images.cache``; a package goes by its own name, the root is ``""``."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {name_of(path): path for path in MODULES}


def room_of(module: str) -> str:
    return module.partition(".")[0]


def floor_of(room: str) -> int:
    """Where a module stands; -1 below all floors."""
    if room in EVERYWHERE:
        return -1
    found = [number for number, rooms in enumerate(FLOORS) if room in rooms]
    assert found, f"src/trainkit/{room} stands on no floor: add it to FLOORS"
    return found[0]


def imports(path: Path) -> set[str]:
    """Dotted names of what a file imports; for ``from a import b`` it is ``a.b``, whether a module or not."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def modules_imported(path: Path) -> set[str]:
    """Which modules of trainkit a file imports: the longest part of each name that is a module."""
    found = set()
    for name in imports(path):
        package, _, inner = name.partition(".")
        if package != "trainkit":
            continue
        while inner not in NAMES:
            inner = inner.rpartition(".")[0]
        found.add(inner)
    return found


def test_every_room_is_on_a_floor():
    rooms = {room_of(name) for name in NAMES if name} - TOP
    assert rooms == set().union(*FLOORS) | EVERYWHERE


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_down(path):
    module = name_of(path)
    room = room_of(module)
    if not room or room in TOP:
        return
    floor = floor_of(room)
    for name in imports(path):
        assert name.partition(".")[0] not in NEVER[max(0, floor)], f"{module} (floor {floor}) imports {name}"
    for other in modules_imported(path):
        assert other, f"{module} imports trainkit itself"
        there = room_of(other)
        assert there not in TOP, f"{module} imports {other}"
        if there == room:
            continue
        assert floor_of(there) <= floor, f"{module} (floor {floor}) imports {other} (floor {floor_of(there)})"
        if floor == floor_of(there) == 2:
            assert there in NEIGHBORS[room], f"{module} imports its neighbor {other}"
        if floor in (1, 2):
            assert there != "config", f"{module} imports {other}: the machine does not know the schema"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_other_rooms_are_entered_by_their_doors(path):
    """Within a room, files import files; others import from the folder, whose ``__init__`` names what it offers."""
    room = room_of(name_of(path))
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("trainkit."):
            continue
        file = node.module.removeprefix("trainkit.")
        folder = file.rpartition(".")[0]
        if file not in NAMES or NAMES[file].name == "__init__.py" or folder in NO_DOOR or room_of(file) == room:
            continue
        names = ", ".join(alias.name for alias in node.names)
        assert file in SIDE_DOORS, f"{path}:{node.lineno}: import {names} from trainkit.{folder}, not from {file}"


def test_no_circles():
    """Not of files either, imports inside of functions included."""
    graph = {name: modules_imported(path) - {name} for name, path in NAMES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"these import each other in a circle: {' -> '.join(error.args[1])}")


def test_there_is_no_drawer_for_everything():
    assert not [path for path in MODULES if path.stem in {"utils", "util", "helpers", "common", "misc"}]
