"""The description of a run in its folder and its checkpoints: configs, machine, versions, data, preprocessing."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

import numpy as np
import torch

from trainkit._version import __version__
from trainkit.builders import Setup
from trainkit.config import LoadedConfig
from trainkit.config.text import to_yaml
from trainkit.system import RunDir, durable


def versions() -> dict[str, str]:
    return {
        "trainkit": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def description(loaded: LoadedConfig, setup: Setup) -> dict[str, Any]:
    """The part of a checkpoint that stays the same over a run: plain values only."""
    return {
        "name": loaded.name,
        "config": loaded.resolved(),
        "task": setup.data.task,
        "class_names": list(setup.data.class_names),
        "class_counts": setup.data.class_counts("train"),
        "target_names": list(setup.data.target_names),
        "preprocessing": setup.preprocessing,
        "data_fingerprint": setup.data.fingerprint,
        "choices": {name: asdict(choice) for name, choice in setup.choices.items()},
        "versions": versions(),
    }


def write_config_files(run: RunDir, loaded: LoadedConfig) -> None:
    """Write the user's file with the overrides as comments, and the resolved config with all values."""
    if run.config.exists():
        text, when = run.config.read_text(), "when the run went on"
    else:
        text, when = loaded.text, "on the command line"
    if loaded.overrides:
        text += "" if text.endswith("\n") else "\n"
        text += f"\n# overrides {when}:\n" + "".join(f"# {item}\n" for item in loaded.overrides)
    durable.write_text(run.config, text)
    resolved = to_yaml({**loaded.resolved(), "name": loaded.name})
    durable.write_text(run.resolved_config, f"# trainkit train {run.resolved_config}\n{resolved}")


def origins_of(loaded: LoadedConfig, *, known: Mapping[str, str]) -> dict[str, str]:
    """The origin of each value. A resumed run keeps those in ``known``, except for keys that were overridden since."""
    return {
        key: known[key] if key in known and origin.kind != "override" else str(origin)
        for key, origin in loaded.origins.items()
    }


def describe_machine() -> dict[str, Any]:
    """The machine, the command and the commit of a run."""
    return {
        "started": datetime.now().isoformat(timespec="seconds"),
        "command": sys.argv,
        "host": platform.node(),
        "platform": platform.platform(),
        "num_cpus": os.cpu_count(),
        "num_threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "git": _git_state(),
    }


def _git_state() -> dict[str, Any] | None:
    """Commit and cleanness of the folder that the command runs in; None outside a repository."""
    try:
        commit = _git("rev-parse", "HEAD")
        return {"commit": commit, "changed_files": len(_git("status", "--porcelain").splitlines())}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=5, check=True)
    return done.stdout.strip()
