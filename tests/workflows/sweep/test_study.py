"""Trials in Optuna's storage: what is known of them, and that one process works on each."""

import math

import pytest
import sweeps

from trainkit.config import Range, load_sweep
from trainkit.errors import UserError
from trainkit.workflows.sweep import study as studies
from trainkit.workflows.sweep.run import check_same
from trainkit.workflows.sweep.samplers import distributions_of
from trainkit.workflows.sweep.study import JOURNAL, Study, Watch, open_storage, with_driver, without_password

SPACE = distributions_of({"optimizer.lr": Range(0.001, 0.1, log=True, step=None, integer=False)})


def open_study(folder, url=None):
    return Study(open_storage(url, folder), "search", maximize=True, distributions=SPACE)


def test_a_trial_is_what_was_written_whoever_reads_it(tmp_path):
    study = open_study(tmp_path)
    one = study.set_values(study.add(), {"optimizer.lr": 0.01}, {"note": "x"})
    study.write(one.id, target=3)
    for epoch, value in enumerate([0.5, math.nan, 0.7], 1):
        study.report(one, epoch, value)
    (read,) = open_study(tmp_path).trials()
    assert (read.state, read.values, read.target, read.attrs) == ("running", {"optimizer.lr": 0.01}, 3, {"note": "x"})
    assert (read.epochs, read.best_until(2, maximize=True), read.best_until(3, maximize=True)) == (3, 0.5, 0.7)
    study.release(read)
    assert open_study(tmp_path).trials()[0].state == "paused"
    study.write(one.id, target=None)
    assert open_study(tmp_path).trials()[0].state == "stopped"
    claimed = study.claim(study.trials()[0])
    study.complete(claimed, 0.7)
    failed = study.add()
    study.fail(failed, "diverged")
    first, second = open_study(tmp_path).trials()
    assert (first.state, first.score, second.state, second.reason) == ("complete", 0.7, "failed", "diverged")


def test_values_that_a_trial_has_stay(tmp_path):
    study = open_study(tmp_path)
    one = study.set_values(study.add(), {"optimizer.lr": 0.01}, {})
    assert study.set_values(one, {"optimizer.lr": 0.05}, {}).values == {"optimizer.lr": 0.01}


def test_only_one_process_gets_a_trial(tmp_path):
    ours, theirs = open_study(tmp_path), open_study(tmp_path)
    theirs.me = "another process"
    one = ours.add()
    ours.release(one)
    (seen,) = theirs.trials()
    assert ours.claim(one).owner == ours.me
    assert theirs.claim(seen) is None
    assert ours.owns(one)
    # Taken over from a dead process: whoever looks again sees that it is not the one that died any more.
    (left,) = theirs.trials()
    assert theirs.claim(left).owner == "another process"
    assert ours.claim(left) is None
    assert not ours.owns(one)


def test_signs_of_life_are_compared_by_one_clock(tmp_path, monkeypatch):
    study = open_study(tmp_path)
    watch = Watch(study, shared=True)
    one = study.add()
    study.write(one.id, owner="00000000-00000000-1-1", beat=1)  # of another machine
    assert not watch.is_dead(study.trials()[0])
    monkeypatch.setattr(studies, "GRACE_SECONDS", -1.0)
    assert watch.is_dead(study.trials()[0])
    study.write(one.id, beat=0)  # whatever its clock says
    assert not watch.is_dead(study.trials()[0])


def test_a_journal_that_was_cut_off_is_mended(tmp_path):
    study = open_study(tmp_path)
    study.add()
    path = tmp_path / JOURNAL
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"op_code":4,"wor')
    again = open_study(tmp_path)
    assert again.add().number == 1
    assert [one.number for one in open_study(tmp_path).trials()] == [0, 1]


def test_a_storage_that_cannot_be_reached_is_the_users_error(tmp_path):
    with pytest.raises(UserError, match=r"--storage sqlite:////nowhere/study.db: .*unable to open"):
        open_storage("sqlite:////nowhere/study.db", tmp_path)
    with pytest.raises(UserError, match=r"--storage nonsense://x: .*nonsense"):
        open_storage("nonsense://x", tmp_path)
    assert with_driver("postgresql://host/db") in ("postgresql+psycopg://host/db", "postgresql+psycopg2://host/db")
    assert with_driver("postgresql+pg8000://host/db") == "postgresql+pg8000://host/db"
    assert without_password("postgresql://me:secret@host/db") == "postgresql://me:***@host/db"


def test_a_sweep_goes_on_with_what_decides_its_scores_alone(tmp_path):
    """Where the data lie, the device and the budget may change."""
    folder = sweeps.write_sweep(tmp_path, "budget: {trials: 1}\n")
    study = open_study(tmp_path)
    check_same(study, load_sweep(folder / "search.yaml"), folder)
    harmless = load_sweep(folder / "search.yaml", ["device=cpu", "training.num_threads=1", "checkpoint.keep_last=5"])
    check_same(study, harmless, folder)
    for change, was in (("dataset.val_fraction=0.2", "0.1"), ("training.epochs=4", "3"), ("seed=1", "0")):
        key, _, now = change.partition("=")
        with pytest.raises(UserError, match=f"other settings: {key} was {was}, and is {now} now"):
            check_same(study, load_sweep(folder / "search.yaml", [change]), folder)
