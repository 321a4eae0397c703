"""``sweeps/NAME/report.html``: what a sweep has found, on one page."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState, create_trial

from trainkit.config import Choice, Space
from trainkit.reports import Confirmed, Searched, SweepData, SweptTrial, build_sweep_page
from trainkit.system import durable
from trainkit.workflows.sweep import samplers
from trainkit.workflows.sweep.confirm import Confirmed as Repeated
from trainkit.workflows.sweep.study import Trial

FEWEST = 5
"""Trials from which the importance of a value can be told at all."""


def write_report(
    folder: Path,
    *,
    objective: str,
    maximize: bool,
    space: Mapping[str, Space],
    trials: Sequence[Trial],
    confirmed: Sequence[Repeated],
    best: Trial,
    epochs: int,
    seconds: float,
) -> Path:
    """Write the page of a sweep.

    Args:
        epochs: of a trial that is trained to its end.
        seconds: that the sweep took.

    Raises:
        WriteError: the folder is not writable.
    """
    data = SweepData(
        name=folder.name,
        objective=objective,
        maximize=maximize,
        searched=[_searched(key, one) for key, one in space.items()],
        trials=[_swept(folder, space, one) for one in trials],
        best=best.number,
        best_config=str(folder / "best.yaml"),
        seconds=seconds,
        importance=importance_of(space, trials, maximize=maximize),
        confirmed=[_confirmed(one) for one in confirmed],
        epochs=epochs,
    )
    path = folder / "report.html"
    durable.write_text(path, build_sweep_page(data))
    return path


def _searched(key: str, space: Space) -> Searched:
    if isinstance(space, Choice):
        return Searched(key, names=space.names)
    return Searched(key, logarithmic=space.log)


def _swept(folder: Path, space: Mapping[str, Space], trial: Trial) -> SweptTrial:
    values = {key: _place(one, trial.values[key]) for key, one in space.items() if key in trial.values}
    page = None if trial.run is None else Path("runs") / trial.run / "report.html"
    return SweptTrial(
        number=trial.number,
        state=trial.state,
        values=values,
        score=trial.score,
        curve=trial.curve,
        seconds=trial.seconds,
        reason=trial.reason or "",
        page=page.as_posix() if page is not None and (folder / page).is_file() else None,
    )


def _place(space: Space, stored: Any) -> Any:
    """A value as the study stores it, as a number: of a choice, its place."""
    return list(samplers.labels(space)).index(stored) if isinstance(space, Choice) else stored


def texts_of(space: Mapping[str, Space], stored: Mapping[str, Any]) -> dict[str, str]:
    """The values of a trial, short enough for a table: ``{"optimizer": "sgd", "optimizer.lr": "0.0123"}``."""
    return {
        key: one.names[_place(one, stored[key])] if isinstance(one, Choice) else f"{stored[key]:.4g}"
        for key, one in space.items()
        if key in stored
    }


def _confirmed(one: Repeated) -> Confirmed:
    verdict = "best" if one.difference is None else "worse" if one.is_worse else "not to be told apart"
    return Confirmed(one.number, list(one.scores.values()), one.mean, one.low, one.high, verdict)


def importance_of(space: Mapping[str, Space], trials: Sequence[Trial], *, maximize: bool) -> dict[str, float]:
    """How much of the differences between trials each value explains (fANOVA); empty where there are too few."""
    scored = [one for one in trials if one.score is not None and one.values.keys() == space.keys()]
    if len(scored) < FEWEST or len({one.score for one in scored}) < 2 or len(space) < 2:
        return {}
    distributions = samplers.distributions_of(space)
    study = optuna.create_study(direction="maximize" if maximize else "minimize")
    for one in scored:
        study.add_trial(
            create_trial(
                state=TrialState.COMPLETE, value=one.score, params=dict(one.values), distributions=distributions
            )
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the evaluator may change
        found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    return {key: float(found.get(key, 0.0)) for key in space}
