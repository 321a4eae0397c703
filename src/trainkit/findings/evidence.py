"""The evidence about a run, and the findings that rules make of it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainkit.recorders import History, number

if TYPE_CHECKING:
    from trainkit.findings.probes import DeadUnits


@dataclass(frozen=True)
class Change:
    """A value of the config to try instead."""

    key: str
    value: str
    """``...`` where only the user can know it."""
    was: str | None = None

    @property
    def override(self) -> str:
        setting = f"{self.key}={self.value}"
        return f"--set '{setting}'" if set(setting) & set(" {}[]") else f"--set {setting}"


@dataclass(frozen=True)
class Finding:
    """Something that the user should know about a run."""

    name: str
    """For programs: ``overfitting``, ``learning-rate-too-high``, ..."""
    title: str
    evidence: str
    suggestion: str
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True)
class Evidence:
    """What is known about a run."""

    history: History
    config: Mapping[str, Any]
    """Every value, as plain data."""
    facts: Mapping[str, Any]
    """Measured before the first step (``facts.facts_before_training``), and ``relation`` at the end; {}: not known."""
    costly_transforms: Sequence[str] = ()
    """The names of all transforms that training may wait for, used or not."""
    monitor: str = ""
    """The metric by which the best epoch is chosen, such as ``val_accuracy``."""
    loss: str = ""
    """The loss's name, also where trainkit chose it."""
    split: str = ""
    """Of ``confusion``, ``r2`` and ``dead_units``."""
    class_names: Sequence[str] = ()
    confusion: Sequence[Sequence[int]] | None = None
    """Rows are the true classes, columns the predicted ones."""
    r2: float | None = None
    """Of a regression, on ``split``."""
    dead_units: tuple[DeadUnits, ...] = ()
    failure: str | None = None

    @property
    def reference_loss(self) -> float:
        """The loss of a network that knows nothing: the higher of the outputs 0 and of the best constant outputs."""
        known = [number(self.facts.get(name)) for name in ("constant_loss", "zero_loss")]
        return max((value for value in known if not math.isnan(value)), default=math.nan)

    @property
    def relation(self) -> Mapping[str, Any]:
        """What ``relation.measure_relation`` found; {} where nobody looked."""
        found: Mapping[str, Any] = self.facts.get("relation", {})
        return found

    @property
    def num_classes(self) -> int:
        return len(self.confusion or self.facts.get("class_counts", ()))

    def value(self, key: str) -> Any:
        """A value of the config by its path; None where there is none."""
        found: Any = self.config
        for piece in key.split("."):
            found = found.get(piece) if isinstance(found, Mapping) else None
        return found

    def num_samples(self, split: str) -> int:
        return int(self.facts.get("num_samples", {}).get(split, 0))

    def change(self, key: str, new: str, *, was: str | None = None) -> Change:
        """Another value for a key of the config."""
        old = self.value(key) if was is None else was
        return Change(key, new, None if old is None else f"{old:g}" if isinstance(old, int | float) else str(old))

    def scaled(self, key: str, factor: float) -> Change:
        """A number of the config times a factor."""
        old = self.value(key)
        return self.change(key, f"{float(old) * factor:.3g}" if isinstance(old, int | float) else "...")

    def transform(self, name: str) -> Mapping[str, Any] | None:
        """The transform of this type in the config; None where there is none."""
        return next((item for item in self.value("transforms") or [] if item["type"] == name), None)

    def transforms(
        self, *, add: str | None = None, without: Sequence[str] = (), replace: Mapping[str, str] | None = None
    ) -> str:
        """The transforms with one more at the end, without some, or with others in their place, as YAML in one line."""
        kept = [item for item in self.value("transforms") or [] if item["type"] not in without]
        texts = [(replace or {}).get(item["type"]) or _flow(item) for item in kept]
        return f"[{', '.join([*texts, *([] if add is None else [add])])}]"


def _flow(item: Mapping[str, Any]) -> str:
    if len(item) == 1:
        return str(item["type"])
    texts = (f"{key}: {value if isinstance(value, str) else json.dumps(value)}" for key, value in item.items())
    return "{" + ", ".join(texts) + "}"


Rule = Callable[[Evidence], Finding | None]


def evidence_from_records(
    info: Mapping[str, Any], history: History, *, status: str, costly_transforms: Sequence[str]
) -> Evidence:
    """The evidence in the files of a run, ``run.json`` and the log, without its model."""
    return Evidence(
        history,
        config=info.get("config", {}),
        facts=info.get("facts", {}),
        costly_transforms=costly_transforms,
        monitor=str(info.get("monitor", "")),
        loss=str(info.get("choices", {}).get("loss", {}).get("value", "")),
        failure=status if status.startswith("failed") else None,
    )


def rises(means: Sequence[float], *, by: float, at_least: float) -> list[int]:
    """The epochs (from 1) whose mean is ``by`` times the lowest before, and ``at_least`` more."""
    found = []
    lowest = math.inf
    for epoch, value in enumerate(means, start=1):
        if value > by * lowest and value - lowest > at_least:
            found.append(epoch)
        lowest = lowest if math.isnan(value) else min(lowest, value)
    return found


def warm_up(history: History) -> int:
    """How many epochs at the start may be rough."""
    return max(2, len(history) // 10)


def chance_reach(rate: float, samples: int) -> float:
    """Half the 95 % interval of a rate (Agresti and Coull, 1998), wide enough at 0 and 1."""
    center = (rate * samples + 2) / (samples + 4)
    return 1.96 * math.sqrt(center * (1 - center) / (samples + 4))


def mean_of_last_third(values: Sequence[float]) -> float:
    return mean(values[-max(1, len(values) // 3) :])


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
