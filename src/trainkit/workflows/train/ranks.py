"""The processes of a run besides the first: they compute their share of each step, and write nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trainkit.checkpoints import load_checkpoint
from trainkit.config import LoadedConfig, load_config
from trainkit.runtime import Ranks
from trainkit.workflows.train.resume_point import ResumePoint


@dataclass(frozen=True)
class Start:
    """What a run starts from, as rank 0 found it: plain values."""

    config: dict[str, Any]
    checkpoint: str | None
    accepted: Mapping[str, Any]
    allow_change: list[str]
    weights: str | None


def tell(
    ranks: Ranks,
    loaded: LoadedConfig,
    point: ResumePoint | None,
    *,
    weights: Path | None = None,
    allow_change: Sequence[str],
) -> None:
    """Tell the other processes what the run starts from."""
    if ranks.size > 1:
        checkpoint, accepted = (None, {}) if point is None else (str(point.checkpoint.resolve()), point.accepted)
        file = None if weights is None else str(weights.resolve())
        ranks.tell(asdict(Start(loaded.resolved(), checkpoint, accepted, list(allow_change), file)))


def hear(ranks: Ranks) -> tuple[LoadedConfig, ResumePoint | None, Start]:
    """The config, and the checkpoint where there is one, that rank 0 told of."""
    start = Start(**ranks.tell(None))
    point = None
    if start.checkpoint is not None:
        path = Path(start.checkpoint)
        point = ResumePoint(path, load_checkpoint(path), accepted=start.accepted)
    return load_config(start.config), point, start


class Nothing:
    """A recorder and a checkpointer that write nothing."""

    def log(self, record: Mapping[str, Any]) -> None: ...
    def sync(self) -> None: ...
    def close(self) -> None: ...
    def save(self, state: dict[str, Any], *, metrics: Mapping[str, float], best: bool) -> None: ...
