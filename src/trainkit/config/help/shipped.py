"""The configs that come with trainkit: from a source checkout and from an installed wheel alike."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from trainkit.wording import closest

SCHEMA_NAME = "trainkit.schema.json"
SCHEMA_LINE = "# yaml-language-server: $schema="


@dataclass(frozen=True)
class ShippedConfig:
    """A config by its name (the file's, without ``.yaml``) with its one-line description."""

    name: str
    path: Path
    description: str


def folder() -> Path:
    """Where the shipped configs are: ``trainkit/configs`` of a wheel, ``configs`` of a source checkout."""
    package = Path(__file__).resolve().parents[2]
    candidates = (package / "configs", package.parents[1] / "configs")
    return next((path for path in candidates if path.is_dir()), candidates[0])


def list_shipped() -> list[ShippedConfig]:
    """All shipped configs by name. The description is the first comment below the line for the editor."""
    found = []
    for path in sorted(folder().glob("*.yaml")):
        found.append(ShippedConfig(path.stem, path, _description(path)))
    return found


def find(name: str) -> ShippedConfig | None:
    """The shipped config of that name, with or without ``.yaml``."""
    return next((config for config in list_shipped() if config.name == name.removesuffix(".yaml")), None)


def _description(path: Path) -> str:
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith(SCHEMA_LINE) and line.strip("# "):
            return line.strip("# ")
    return ""


def hint_for_missing(path: Path) -> str:
    """What to do about a config file that does not exist."""
    exact = find(path.name)
    if exact is not None:
        return f"{exact.name} is a shipped config: give its path, {_shown(exact.path)}"
    try:
        near = closest(path.name, (item.name for item in path.parent.iterdir() if item.suffix in (".yaml", ".yml")))
    except OSError:
        near = None
    if near is not None:
        return f"did you mean {path.parent / near}?"
    similar = closest(path.stem, (config.name for config in list_shipped()))
    if similar is not None:
        found = find(similar)
        assert found is not None
        return f"did you mean the shipped {_shown(found.path)}?"
    return "`trainkit config list` shows the shipped ones, `trainkit config init` writes one to start from"


def _shown(path: Path) -> str:
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
