"""The sections of the report page about how a run was made: its config and its environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainkit.wording import by_key


def config_section(info: Mapping[str, Any]) -> dict[str, Any] | None:
    """Every value: a table for each file that wrote some, one for the overrides, and the defaults apart."""
    origins = info.get("origins", {})
    files: dict[str, list[list[str]]] = {}
    overridden, rest = [], []
    for key, value in by_key(info.get("config", {})).items():
        text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        origin = str(origins.get(key) or "default")
        file, _, line = origin.rpartition(":")
        if origin == "default":
            rest.append([key, text])
        elif line.isdigit() and not origin.startswith("--"):
            files.setdefault(file, []).append([key, text, line])
        else:
            overridden.append([key, text])
    if not (files or overridden or rest):
        return None
    return {
        "files": list(files.items()),
        "overridden": overridden,
        "rest": rest,
        "caption": f"{len(rest)} values left at their default" if files or overridden else f"All {len(rest)} values",
    }
