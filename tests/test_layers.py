"""Imports go down only: the floors of the design, read from the sources."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "trainkit"
FLOORS = [
    {"errors", "children", "config", "durable", "hashing", "importing", "json_lines", "processes", "rundir", "signals"},
    {
        "device",
        "seeding",
        "metrics",
        "ranking",
        "intervals",
        "schedules",
        "losses",
        "optimizers",
        "models",
        "data",
    },
    {
        "state",
        "guard",
        "engine",
        "step",
        "plan",
        "checkpoints",
        "recorders",
        "exports",
        "reports",
    },
    {"build"},
    {"workflows"},
    {"cli", "console", "__main__"},
]
NEVER = {
    0: {"torch", "torchvision", "typer", "rich"},
    1: {"pydantic", "typer", "rich"},
    2: {"pydantic", "typer", "rich"},
    3: {"typer", "rich"},
    4: {"typer", "rich"},
    5: set(),
}
# The machine and the parts know nothing of the schema: they may use only these of the ground.
GROUND_FOR_PARTS = {"errors", "children", "durable", "importing", "json_lines", "processes"}
MODULES = sorted(SOURCE.rglob("*.py"))


def module_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def floor_of(module: str) -> int:
    for number, modules in enumerate(FLOORS):
        if module in modules:
            return number
    raise AssertionError(f"src/trainkit/{module} stands on no floor: add it to FLOORS")


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_there_are_modules_on_every_floor():
    assert {floor_of(module_of(path)) for path in MODULES if module_of(path) != "__init__"} == set(range(len(FLOORS)))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_down(path):
    module = module_of(path)
    if module == "__init__":
        return
    floor = floor_of(module)
    for name in imports(path):
        package, *rest = name.split(".")
        assert package not in NEVER[floor], f"{path.name} (floor {floor}) imports {name}"
        if package != "trainkit" or not rest or rest[0] == "__version__" or rest[0] == module:
            continue
        other = floor_of(rest[0])
        assert other <= floor, f"{path.name} (floor {floor}) imports {name} (floor {other})"
        if floor in (1, 2) and other == 0:
            assert rest[0] in GROUND_FOR_PARTS, f"{path.name} (floor {floor}) imports {name}"


def test_there_is_no_drawer_for_everything():
    assert not [path for path in MODULES if path.stem in {"utils", "util", "helpers", "common", "misc"}]
