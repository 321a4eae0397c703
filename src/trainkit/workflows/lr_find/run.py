"""``trainkit lr-find``: a rising learning rate, and where the loss falls.

The search itself (``search``) runs in a process of its own, ``trainkit lr-find --curves``, which this module starts; it
imports no torch.
"""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from trainkit.config import LoadedConfig, load_config
from trainkit.config.text import set_in_section
from trainkit.errors import ConfigError, Interrupted, Problem, UserError
from trainkit.plugins import plugin_options
from trainkit.system import Frontend, durable, run_child
from trainkit.workflows.bench import ChildFailed
from trainkit.workflows.lr_find.curves import KEY, Curve

STEPS, SEEDS = 150, 3


def check_searchable(loaded: LoadedConfig) -> None:
    """See that there is a learning rate to search for.

    Raises:
        ConfigError: the optimizer has none that matters.
    """
    if loaded.config.optimizer.type == "lbfgs":
        why = "lbfgs finds the length of its steps itself: leave its lr at 1, or choose another optimizer for lr-find"
        raise ConfigError([loaded.locate(Problem(why, "optimizer.type"))])


def left_out(loaded: LoadedConfig) -> Iterator[str]:
    """What of a config the search does without, and what speaks against its result, a line each."""
    config, own = loaded.config, loaded.origins[KEY].model
    scheduler = config.scheduler.type
    if scheduler != "constant" or config.scheduler.warmup is not None:
        what = f"scheduler {scheduler}" + (" and its warm-up" if config.scheduler.warmup is not None else "")
        where = "its highest value" if scheduler in ("one_cycle", "coslog") else "where it starts"
        yield f"the search leaves out {what}; {KEY} is {where}"
    if config.fine_tuning.unfreeze:
        yield "what fine_tuning unfreezes later stays frozen in the search"
    if own is not None:
        yield f"{KEY} {config.optimizer.lr:g} comes with {own} and its schedule: compare both before you change it"


def search_apart(
    config: Path,
    *,
    overrides: Sequence[str],
    unset: Sequence[str],
    steps: int,
    seeds: int,
    quiet: bool = False,
    frontend: Frontend,
) -> list[Curve]:
    """The curves, by a process of its own.

    Raises:
        ChildFailed: it failed, and has said why on stderr.
        Interrupted: the frontend asked for a stop.
    """
    command = [sys.executable, "-m", "trainkit", *plugin_options(), "lr-find", str(config), "--curves"]
    command += ["--steps", str(steps), "--seeds", str(seeds), *(["--quiet"] if quiet else [])]
    command += [word for key in unset for word in ("--unset", key)]
    command += [word for item in overrides for word in ("--set", item)]
    done = run_child(command, show_stderr=True, should_stop=frontend.stop)
    if done is None or frontend.stop():
        raise Interrupted("the search was given up", 130)
    if done.returncode != 0:
        raise ChildFailed(done.returncode, done.stderr)
    return [Curve(**values) for values in json.loads(done.stdout)]


def edited(path: Path, lr: float) -> bytes:
    """The bytes of a config file with another learning rate, and nothing else changed.

    Raises:
        UserError: the file does not write it at a place of its own.
    """
    data = path.read_bytes()
    mark = b"\xef\xbb\xbf" if data.startswith(b"\xef\xbb\xbf") else b""
    text = data.removeprefix(mark).decode("utf-8")
    wanted = _values(load_config(path, overrides=[f"{KEY}={lr!r}"]))
    # A section that comes with the model or another file has a type already.
    for kind in (None, wanted["optimizer"]["type"]):
        changed, values = set_in_section(text, "optimizer", "lr", lr, type=kind)
        with suppress(ConfigError):
            if _values(load_config(values, config_dir=path.parent)) == wanted:
                return mark + changed.encode("utf-8")
    raise UserError(f"{path}: {KEY} cannot be changed in this file alone")


def write_rate(path: Path, lr: float) -> None:
    """Write the learning rate into a config file, whose links and permissions stay.

    Raises:
        UserError: as ``edited``.
        WriteError: the file cannot be written.
    """
    data, file = edited(path, lr), path.resolve()
    mode = file.stat().st_mode
    durable.write_bytes(file, data)
    with durable.writing(file):
        file.chmod(stat.S_IMODE(mode))


def _values(loaded: LoadedConfig) -> dict[str, Any]:
    return {key: value for key, value in loaded.resolved().items() if key != "name"}
