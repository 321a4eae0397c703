"""The page of a sweep: ``report.html`` in its folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from trainkit.recorders import title_of
from trainkit.reports.run_page import render
from trainkit.reports.sweep_charts import draw_sweep, left_out
from trainkit.reports.sweep_data import SweepData, SweptTrial
from trainkit.wording import duration, enumerated

MAX_ROWS = 200


def build_sweep_page(data: SweepData) -> str:
    """One HTML file that needs nothing from outside; links lead to the reports of the trials."""
    charts, parallel = draw_sweep(data)
    outside = sorted(one.number for one in left_out(data))
    ranked = [*data.scored, *(one for one in data.trials if one.score is None)]
    return render(
        "sweep.html.j2",
        title=f"Sweep {data.name}",
        lead=" ".join(_sentences(data)),
        cards=_cards(data),
        command=f"trainkit train {data.best_config}",
        drawn=charts,
        parallel=parallel,
        header=["trial", title_of(data.objective), *(one.key for one in data.searched), "state", "epochs", "time"],
        rows=[_row(data, one) for one in ranked[:MAX_ROWS]],
        more=max(0, len(ranked) - MAX_ROWS),
        not_drawn=_trials(outside) if outside else "",
        confirmed=[
            [
                f"trial\xa0{one.number}",
                data.text(one.mean),
                f"{data.text(one.low)} to {data.text(one.high)}",
                one.verdict,
            ]
            for one in data.confirmed
        ],
        seeds=max((len(one.scores) for one in data.confirmed), default=0),
        failed=[(one.number, one.reason) for one in data.trials if one.state == "failed"],
    )


def _sentences(data: SweepData) -> list[str]:
    best = next(one for one in data.trials if one.number == data.best)
    values = enumerated(
        f"{one.key} {one.text(best.values[one.key])}" for one in data.searched if one.key in best.values
    )
    sentences = [f"Trial {best.number} is the best: {title_of(data.objective)} {data.text(best.score)} with {values}."]
    if data.confirmed:
        first, *others = data.confirmed
        alike = [one.number for one in others if one.verdict != "worse"]
        same = f"; {_trials(alike)} cannot be told apart from it" if alike else ""
        sentences.append(f"With other seeds, trial {first.number} is ahead with {data.text(first.mean)}{same}.")
        highest = data.scored[0]
        if highest.number != first.number:
            sentences.append(f"In the search, trial {highest.number} was ahead with {data.text(highest.score)}.")
    if data.importance:
        key, share = max(data.importance.items(), key=lambda pair: pair[1])
        sentences.append(f"{key} explains {100 * share:.0f} % of the differences between trials.")
    return sentences


def _trials(numbers: Sequence[int]) -> str:
    """``trial 4``, ``trials 4, 7 and 9``."""
    return f"trial{'s' if len(numbers) > 1 else ''} {enumerated(numbers)}"


def _cards(data: SweepData) -> list[tuple[str, str, str]]:
    """Title, value and remark of each card."""
    states = Counter(one.state for one in data.trials)
    others = [f"{count} {state}" for state, count in states.items() if state != "complete"]
    trained = sum(max(one.curve, default=0) for one in data.trials)
    spent = [one.seconds for one in data.trials if one.seconds > 0]
    whole = data.epochs * len(data.trials)
    share = f"{100 * trained / whole:.0f} % of all trials to their ends" if whole and trained < whole else ""
    best = next(one for one in data.trials if one.number == data.best)
    return [
        (f"best {title_of(data.objective)}", data.text(best.score), f"trial {best.number}"),
        ("trials", str(len(data.trials)), ", ".join(others) or "all complete"),
        ("epochs", f"{trained:,}", share),
        ("time", duration(data.seconds), f"{duration(sum(spent) / max(1, len(spent)))} a trial"),
    ]


def _row(data: SweepData, trial: SweptTrial) -> dict[str, Any]:
    values = [one.text(trial.values[one.key]) if one.key in trial.values else "–" for one in data.searched]
    return {
        "number": trial.number,
        "page": trial.page,
        "is_best": trial.number == data.best,
        "cells": [
            data.text(trial.score),
            *values,
            trial.state,
            str(max(trial.curve, default=0)),
            duration(trial.seconds),
        ],
    }
