"""What a run folder says about the run: the config as written and as resolved, the machine, the state of the code."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import torch

from trainkit import durable
from trainkit.config import LoadedConfig
from trainkit.config.writer import to_yaml
from trainkit.rundir import RunDir


def write_config_files(run: RunDir, loaded: LoadedConfig) -> None:
    """The file as the user wrote it with the overrides as comments, and every value of the resolved config."""
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
    """Where each value came from. A run that goes on keeps what is ``known``, except for what was overridden since."""
    return {
        key: known[key] if key in known and origin.kind != "override" else str(origin)
        for key, origin in loaded.origins.items()
    }


def describe_machine() -> dict[str, Any]:
    """Where and with what the run was made."""
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
