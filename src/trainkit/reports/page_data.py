"""The data of a run's report page."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainkit.recorders import History

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from trainkit.evaluation import Report
    from trainkit.findings import Finding
    from trainkit.reports.figures import Chart


@dataclass(frozen=True)
class Evaluated:
    """The best checkpoint on a split."""

    split: str
    report: Report
    sample_names: Sequence[str]
    """By mistake (largest error): its file, or its index in the data."""
    images: Sequence[NDArray[np.uint8]]
    """By mistake: uint8 (C, H, W); empty for tables."""


@dataclass(frozen=True)
class SavedFile:
    """A file of the run, for a link."""

    kind: str
    """checkpoint, best checkpoint, export, evaluation, log or config."""
    path: str
    """Below the run folder, with ``/``."""
    num_bytes: int
    """Of the whole folder for an export or an evaluation."""


@dataclass(frozen=True)
class PageData:
    """What the page shows."""

    folder: str
    """The run folder as the user writes it in commands."""
    info: Mapping[str, Any]
    """``run.json``."""
    status: str
    history: History
    findings: Sequence[Finding]
    charts: Sequence[Chart] | None = None
    """Learning curves; None where they were not drawn."""
    predictions: Chart | None = None
    """Of a regression: predicted against true values."""
    layers: Sequence[Mapping[str, Any]] = ()
    """Rows of the network's table, in order."""
    files: Sequence[SavedFile] = ()
    evaluated: Evaluated | None = None
    missing: str | None = None
    """Why there is no evaluation on the page."""

    @functools.cached_property
    def metrics(self) -> Mapping[str, Mapping[str, float]]:
        """By split: the metrics that the run wrote at its end; if there are none, those computed for this page."""
        written = self.info.get("metrics") or {}
        if written or self.evaluated is None:
            return written
        return {self.evaluated.split: self.evaluated.report.metrics}
