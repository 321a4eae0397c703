"""``training.num_threads``: how many CPU threads share an operation, and why."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

import torch

from trainkit.config.schema import Config
from trainkit.models import LayerRow
from trainkit.runtime import Choice
from trainkit.system import CpuTime, cores_of_others, launched, physical_cores, visible_cores
from trainkit.wording import counted

SMALL_STEP = 100_000_000
"""Multiply-adds of the forward pass of a batch, or of a piece of one, below which a step has one thread.

Such a step takes some milliseconds at most, of which a second thread saves up to a third. Threads wait for each other
at the end of each operation, though: where another program wants a core, two took five times as long as one, or more.
``benchmarks/README.md`` has the figures.
"""

NOISE = 0.4
"""Cores that other programs may keep busy on a machine that counts as idle."""


def choose_threads(
    config: Config, rows: Sequence[LayerRow], *, device: torch.device, stored: Mapping[str, Any] | None = None
) -> Choice:
    """Set how many threads an operation uses; ``auto`` keeps the number of the checkpoint ``stored`` if it can.

    Args:
        rows: the layers, for one sample.
    """
    choice = _choose(config, rows, device, stored)
    torch.set_num_threads(int(choice.value))
    return choice


def use_most_threads(config: Config) -> None:
    """Set the number of threads for what is done before the model is known."""
    asked = config.training.num_threads
    torch.set_num_threads(most_threads() if asked == "auto" else asked)


def _choose(config: Config, rows: Sequence[LayerRow], device: torch.device, stored: Mapping[str, Any] | None) -> Choice:
    spec, most = config.training, most_threads()
    if spec.num_threads != "auto":
        return Choice(str(spec.num_threads), "as asked for")
    if stored is not None and 0 < (before := int(stored["choices"].get("threads", {}).get("value", 0))) <= most:
        return Choice(str(before), "auto: as in the checkpoint, for the same last digits")
    if device.type != "cpu":
        return Choice(str(most), f"auto: {_source_of(most)}; the steps are computed on {device}")
    products = sum(row.multiply_adds for row in rows) * spec.batch_size // spec.accumulation_steps
    work = f"{products / 1e6:,.3f} million multiply-adds a {'batch' if spec.accumulation_steps == 1 else 'piece'}"
    if products < SMALL_STEP:
        return Choice("1", f"auto: {work} are too few to share")
    return Choice(str(most), f"auto: {_source_of(most)}, for {work}")


def most_threads() -> int:
    """One thread for each physical core that this process may use, or ``OMP_NUM_THREADS``.

    The processes of a run on this machine share the cores, and so do the trials of a sweep.
    """
    sharing = launched.ranks_here() * launched.trials_here()
    return _asked_of_openmp() or max(1, (physical_cores() or _threads_of_torch()) // sharing)


def _source_of(most: int) -> str:
    if _asked_of_openmp() is not None:
        return "OMP_NUM_THREADS"
    if launched.ranks_here() > 1:
        return f"the cores are shared by {launched.ranks_here()} processes"
    if launched.trials_here() > 1:
        return f"the cores are shared by {launched.trials_here()} trials"
    return f"{counted(most, 'physical core')} may be used" if physical_cores() else "PyTorch's choice"


def _asked_of_openmp() -> int | None:
    """The first number of ``OMP_NUM_THREADS``, which may be a list; None where it has none."""
    with suppress(ValueError):
        return max(1, int(os.environ.get("OMP_NUM_THREADS", "").split(",")[0]))
    return None


@cache
def _threads_of_torch() -> int:
    """PyTorch's own choice, asked for before it is changed."""
    return torch.get_num_threads()


def describe_others(since: CpuTime | None, choices: Mapping[str, Choice]) -> str | None:
    """A remark where other programs want the cores that the steps need; None on an idle machine.

    Args:
        since: a moment some tenths of a second ago.
    """
    others, cores, num_threads = cores_of_others(since), visible_cores(), int(choices["threads"].value)
    if choices["device"].value != "cpu" or others is None or others + min(num_threads, cores) <= cores + NOISE:
        return None
    remark = f"the machine is busy: other programs keep {others:.1f} of {counted(cores, 'core')} busy"
    if num_threads == 1:
        return f"{remark}, so training takes longer"
    return f"{remark}, and {num_threads} threads wait for each other; training.num_threads=1 may be faster"
