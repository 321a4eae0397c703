"""Fresh seeds: each of the best trials with each seed once, and what may be called better."""

import math

import pytest
import sweeps

from trainkit.config import load_sweep
from trainkit.workflows.sweep.confirm import compare, plan_of, sentence
from trainkit.workflows.sweep.study import Trial


def run(trial, seed, score):
    state = "complete" if score is not None else "failed"
    return Trial(0, state, values={"trial": trial, "seed": seed}, score=score)


def runs(**scores):
    return [run(int(name[1:]), seed, score) for name, values in scores.items() for seed, score in enumerate(values, 1)]


def test_each_of_the_best_gets_each_fresh_seed_once(tmp_path):
    folder = sweeps.write_sweep(tmp_path, "budget: {trials: 4}\nconfirm: {top: 2, seeds: 2}\n")
    loaded = load_sweep(folder / "search.yaml")
    label = "[8]"
    top = [Trial(n, "complete", values={"optimizer.lr": 0.01 * (n + 1), "model.hidden_sizes": label}) for n in (3, 0)]
    plan = plan_of(loaded, top, [])
    made = []
    for number in range(plan.count):
        made.append(Trial(number, "complete", values=plan.propose(number, made)[0]))
    assert [tuple(one.values.values()) for one in made] == [(3, 1), (0, 1), (3, 2), (0, 2)]
    config = plan.config(made[2]).config
    assert (config.seed, config.optimizer.lr, config.model.hidden_sizes) == (2, 0.04, [8])
    assert plan.name(made[2]) == "search-003-seed2"
    # The search went on, and another trial is among the best now: only what is new is trained.
    again = plan_of(loaded, [top[0], Trial(7, "complete", values=top[0].values)], made)
    assert again.count == 6
    assert again.propose(4, made)[0] == {"trial": 7, "seed": 1}


def test_scores_are_compared_seed_by_seed():
    """Seeds differ more than trials do: only the pairs tell them apart."""
    found = compare(runs(t4=[0.90, 0.94, 0.98], t1=[0.88, 0.92, 0.96], t2=[0.80, 0.99, 0.99]), maximize=True)
    assert [one.number for one in found] == [4, 2, 1]
    assert [one.is_worse for one in found] == [False, False, True]
    assert found[0].mean == pytest.approx(0.94)
    assert found[0].low == pytest.approx(0.94 - 4.302653 * 0.04 / math.sqrt(3), abs=1e-6)  # Student's t, 2 degrees
    text = sentence(found, "val_accuracy")
    assert text == (
        "trial 4 has the best mean val_accuracy, 0.94 (0.8406 to 1.039); worse, seed by seed: 1; "
        "not to be told apart from it, so that the difference may be noise: 2"
    )


def test_losses_and_runs_that_failed():
    found = compare(runs(t0=[0.5, 0.4], t1=[0.3, None], t2=[None, None]), maximize=False)
    assert [one.number for one in found] == [1, 0]
    assert found[1].is_worse is False  # one pair says nothing
    assert sentence(found, "val_loss").startswith("trial 1 has the best mean val_loss, 0.3; not to be told apart")
    assert compare([run(0, 1, None)], maximize=False) == []
