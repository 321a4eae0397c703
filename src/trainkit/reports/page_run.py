"""The sections of the report page about how a run was made: its config, its files and its environment."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from trainkit.reports.page_data import SavedFile
from trainkit.wording import by_key, counted, size_text


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
        "caption": f"{counted(len(rest), 'value')} left at the default"
        if files or overridden
        else f"All {len(rest)} values",
    }


def files_section(files: Sequence[SavedFile]) -> list[dict[str, str]]:
    """Links to the files of the run, relative to the page."""
    return [
        {"kind": one.kind, "path": one.path, "href": quote(one.path), "size": size_text(one.num_bytes)} for one in files
    ]


def environment_section(info: Mapping[str, Any]) -> list[list[str]]:
    """Where and with what the run ran, by row; a choice that was asked for stands in the config."""
    gpus = info.get("gpus")
    git = info.get("git") or {}
    changed = git.get("changed_files", 0)
    commit = f"{git.get('commit')}" + (f", {counted(changed, 'file')} changed" if changed else "")
    memory, cores, choices = info.get("memory_bytes"), info.get("num_cpus"), info.get("choices", {})
    rows = {
        "started": str(info.get("started") or "").replace("T", " "),
        "command": _command(info.get("command")),
        "commit": commit if git.get("commit") else "",
        "machine": info.get("host"),
        "system": info.get("platform"),
        "CPU": ", ".join(str(part) for part in (info.get("cpu"), cores and counted(cores, "core")) if part),
        "memory": size_text(memory) if isinstance(memory, int) else "",
        "GPUs": ", ".join(map(str, gpus)) if isinstance(gpus, list) else gpus,
        "threads": info.get("num_threads"),
    }
    rows |= {
        name: f"{choice.get('value')} ({choice.get('reason')})"
        for name, choice in choices.items()
        if choice.get("reason") != "as asked for"
    }
    rows |= info.get("versions", {})
    return [[term, str(value)] for term, value in rows.items() if value not in (None, "")]


def _command(command: object) -> str:
    """As it was typed, up to the quotes: without the path of the program."""
    if not isinstance(command, list):
        return str(command or "")
    program, *arguments = map(str, command or [""])
    name = PurePath(program).name
    return " ".join(["trainkit" if name in ("__main__.py", "trainkit") else program, *map(shlex.quote, arguments)])
