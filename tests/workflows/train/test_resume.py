"""``--resume auto``, ``trainkit resume``, ``--resume CHECKPOINT``, ``--init-from``: runs that go on, and refusals."""

import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import socket
import time

import numpy as np
import pytest
import torch
from engine_runs import CNN, MLP, STEPS, Said, differences, frontend, load, train_with_stops

from trainkit.api import evaluate
from trainkit.checkpoints.folder import CheckpointFolder
from trainkit.checkpoints.loading import load_checkpoint
from trainkit.errors import CheckpointError, Interrupted, TrainkitError, UserError
from trainkit.recorders.logs import read_json_lines
from trainkit.system.frontend import Frontend
from trainkit.system.run_folder import RunDir, RunLocked, list_runs, newest_run
from trainkit.workflows.runs import summarize
from trainkit.workflows.train.dry_run import dry_run
from trainkit.workflows.train.recording import description
from trainkit.workflows.train.run import resume, train

pytestmark = pytest.mark.usefixtures("fast_runs")
TIES = "optimizer.lr=1e-12"  # nothing moves: all epochs have one score, and the first is the best


@pytest.fixture
def messages():
    return Said()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished run and one stopped at step 12; copied for each test that changes them."""
    import file_layers

    with pytest.MonkeyPatch.context() as patch, file_layers.installed(file_layers.SYNC_FREE):
        patch.setattr("trainkit.workflows.train.finish.report_training", lambda run, setup, *, frontend: None)
        patch.setattr("trainkit.workflows.train.run.measure_facts", lambda setup: {})
        folder = tmp_path_factory.mktemp("made")
        loaded = load(folder, MLP, "checkpoint.keep_last=3")
        train(loaded, runs_dir=folder / "finished")
        with pytest.raises(Interrupted):
            train(loaded, runs_dir=folder / "stopped", frontend=frontend(stop_at=12))
    return folder


@pytest.fixture
def finished(made, tmp_path) -> RunDir:
    shutil.copytree(made / "finished", tmp_path / "runs")
    return newest_run(tmp_path / "runs")


@pytest.fixture
def stopped(made, tmp_path) -> RunDir:
    shutil.copytree(made / "stopped", tmp_path / "runs")
    return newest_run(tmp_path / "runs")


def files_of(run: RunDir) -> dict:
    return {path.name: path.read_bytes() for path in run.path.rglob("*") if path.is_file() and path.name != ".lock"}


@contextlib.contextmanager
def dying_in(function: str):
    """The process comes to its end there, without a word."""

    def die(*arguments, **rest):
        raise SystemExit

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(function, die)
        yield


def damage(path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


class TestAuto:
    def test_starts_where_there_is_none_then_goes_on_then_starts_again(self, made, tmp_path, messages):
        loaded = load(tmp_path, MLP, "checkpoint.keep_last=3")
        with pytest.raises(Interrupted, match=r"the state is saved; to go on: trainkit resume .*runs/"):
            train(loaded, runs_dir=tmp_path / "runs", resume="auto", frontend=frontend(stop_at=9, say=messages.append))
        assert "no unfinished run of this config, so a new one starts" in messages
        train(loaded, runs_dir=tmp_path / "runs", resume="auto", frontend=frontend(say=messages.append))
        assert "step000009.pth, after step 9" in messages
        (run,) = list_runs(tmp_path / "runs")
        assert differences(newest_run(made / "finished"), run) == []
        train(loaded, runs_dir=tmp_path / "runs", resume="auto", frontend=frontend())
        assert len(list_runs(tmp_path / "runs")) == 2

    @pytest.mark.parametrize("when", ["data: ", "run: "])
    def test_two_at_once_are_one_run(self, tmp_path, when):
        """The second starts while the first one reads its data, or when it has claimed its folder."""
        loaded, answers = load(tmp_path, MLP, "training.epochs=1"), []

        def say(message: str) -> None:
            if message.startswith(when) and not answers:
                answers.append("")
                try:
                    train(loaded, runs_dir=tmp_path / "runs", resume="auto", frontend=frontend())
                except UserError as error:
                    answers[0] = str(error)

        if when == "run: ":
            train(loaded, runs_dir=tmp_path / "runs", resume="auto", frontend=frontend(say=say))
            assert "runs: process" in answers[0]
            assert "is working on a run of this config since" in answers[0]
        else:
            with pytest.raises(UserError, match="another process has begun this run"):
                train(loaded, runs_dir=tmp_path / "runs", resume="auto", frontend=frontend(say=say))
        assert [run.status() for run in list_runs(tmp_path / "runs")] == ["finished"]
        assert len(list((tmp_path / "runs").iterdir())) == 1, "no lock is left over"
        train(loaded, runs_dir=tmp_path / "runs", resume="auto", frontend=frontend())
        assert len(list_runs(tmp_path / "runs")) == 2, "one after the other, as before"

    def test_another_config_is_another_run(self, stopped, tmp_path):
        train(load(tmp_path, MLP, "optimizer.lr=0.01"), runs_dir=tmp_path / "runs", resume="auto", frontend=frontend())
        assert len(list_runs(tmp_path / "runs")) == 2
        assert stopped.status() == "interrupted"

    def test_harmless_keys_are_the_same_run(self, stopped, tmp_path, made):
        loaded = load(tmp_path, MLP, "logging.every=1", "checkpoint.every=1st", "training.num_workers=2", "name=other")
        train(loaded, runs_dir=tmp_path / "runs", resume="auto", frontend=frontend())
        assert [run.status() for run in list_runs(tmp_path / "runs")] == ["finished"]
        found = differences(newest_run(made / "finished"), stopped)
        assert found == []


class TestTime:
    """Earlier parts are given seconds that no part of these runs takes."""

    def test_is_that_of_all_parts(self, stopped, tmp_path):
        stopped.update_info(seconds=1000.0)
        loaded = load(tmp_path, MLP)
        with pytest.raises(Interrupted):
            train(loaded, runs_dir=tmp_path / "runs", resume="auto", frontend=frontend(stop_at=15))
        assert 1000 < stopped.seconds < 2000
        stopped.update_info(seconds=2000.0)
        result = resume(stopped.path, frontend=frontend())
        assert 2000 < result.seconds < 3000
        assert summarize(stopped).seconds == stopped.seconds == pytest.approx(result.seconds, abs=0.02)

    def test_of_a_killed_part_is_that_of_its_checkpoint(self, stopped, tmp_path):
        state = load_checkpoint(CheckpointFolder(stopped.checkpoints).last())
        state["progress"] |= {"train_seconds": 500.0, "validation_seconds": 40.0, "checkpoint_seconds": 3.0}
        torch.save(state, tmp_path / "part.pth")
        result = train(load(tmp_path), runs_dir=tmp_path / "new", resume=tmp_path / "part.pth", frontend=frontend())
        assert 543 < result.seconds < 1000

    @pytest.mark.parametrize("known", ["abc", -1, None, [1], 1e400])
    def test_nonsense_in_run_json_is_no_time(self, known, stopped):
        info = stopped.read_info() | {"seconds": known}
        stopped.info.write_text(json.dumps(info))
        assert stopped.seconds == 0
        assert resume(stopped.path, frontend=frontend()).seconds < 500


class TestDamage:
    def test_takes_the_newest_good_one_and_says_which_it_skipped(self, stopped, made, tmp_path, messages):
        newest = CheckpointFolder(stopped.checkpoints).last()
        damage(newest)
        resume(stopped.path, frontend=frontend(say=messages.append))
        assert f"warning: {newest.name} is skipped: " in messages
        assert "after step 7" in messages
        assert differences(newest_run(made / "finished"), stopped) == []

    def test_all_damaged(self, stopped):
        for path in stopped.checkpoints.glob("*.pth"):
            damage(path)
        before = files_of(stopped)
        with pytest.raises(TrainkitError, match="every checkpoint is damaged; nothing was changed") as error:
            resume(stopped.path, frontend=frontend())
        assert error.value.exit_code == 1
        assert files_of(stopped) == before

    def test_all_damaged_and_no_journal(self, stopped):
        for path in stopped.checkpoints.glob("*.pth"):
            path.write_bytes(path.read_bytes()[:1000])
        (stopped.checkpoints / "checkpoints.json").unlink()
        before = files_of(stopped)
        with pytest.raises(TrainkitError, match="none of its files is a whole checkpoint of this run") as error:
            resume(stopped.path, frontend=frontend())
        assert error.value.exit_code == 1
        assert before.items() <= files_of(stopped).items()

    def test_no_journal(self, stopped, made):
        for name in ("checkpoints.json", "best", "last"):
            (stopped.checkpoints / name).unlink()
        resume(stopped.path, frontend=frontend())
        assert differences(newest_run(made / "finished"), stopped) == []

    def test_the_best_is_lost(self, tmp_path, messages):
        """Its score cannot be had any more: the best of what is to come takes its place, and the run can end."""
        loaded = load(tmp_path, MLP, TIES)
        with pytest.raises(Interrupted):
            train(loaded, runs_dir=tmp_path / "runs", frontend=frontend(after_epoch=2))
        run = newest_run(tmp_path / "runs")
        damage(CheckpointFolder(run.checkpoints).best())
        result = resume(run.path, frontend=frontend(say=messages.append))
        assert "the best so far, is lost" in messages
        assert result.best_epoch == 3
        assert "epoch03" in result.best_checkpoint.name

    def test_the_best_is_damaged_at_the_end(self, tmp_path, messages):
        with pytest.raises(Interrupted):
            train(load(tmp_path, MLP, TIES), runs_dir=tmp_path / "runs", frontend=frontend(stop_at=STEPS))
        run = newest_run(tmp_path / "runs")
        best = CheckpointFolder(run.checkpoints).best()
        front = frontend(say=lambda text: damage(best) if text.startswith("going on with") else messages.append(text))
        result = resume(run.path, frontend=front)
        assert f"{best.name}, the best, is damaged since it was saved" in messages
        assert "epoch03" in result.best_checkpoint.name


class TestFinished:
    @pytest.mark.parametrize("overrides", [[], ["logging.every=7"], ["training.epochs=2"], ["checkpoint.keep_last=1"]])
    def test_does_nothing_and_says_so(self, finished, messages, overrides):
        before = files_of(finished)
        assert resume(finished.path, overrides=overrides, frontend=frontend(say=messages.append)) is None
        assert files_of(finished) == before
        assert (
            f"finished after 3 epochs, nothing to do; to train it for longer: trainkit resume {finished.path}"
            in messages
        )

    def test_a_changed_result_is_refused(self, finished):
        with pytest.raises(UserError, match=r"optimizer.lr: 0.05 in the checkpoint, 0.5 in the config"):
            resume(finished.path, overrides=["optimizer.lr=0.5"], frontend=frontend())

    def test_none_is_unfinished(self, finished):
        with pytest.raises(UserError, match="no run that is not finished; name a finished one"):
            resume(runs_dir=finished.path.parent, frontend=frontend())

    def test_more_epochs_say_what_changes_in_the_schedule(self, tmp_path, messages):
        loaded = load(tmp_path, MLP, "scheduler=cosine")
        run = train(loaded, runs_dir=tmp_path / "runs", frontend=frontend()).run
        result = resume(run.path, overrides=["training.epochs=6"], frontend=frontend(say=messages.append))
        assert result.epochs_completed == 6
        assert "training.epochs: 3 -> 6" in messages
        assert "the schedule is another one now: at step 21 the learning rate is 0.025, not 0" in messages
        steps = [record["step"] for record in read_json_lines(run.metrics) if record["type"] == "step"]
        assert steps == list(range(1, 43))
        assert (run.path / "config.resolved.yaml").read_text().count("epochs: 6") == 1

    def test_more_epochs_of_a_constant_schedule_are_a_longer_run(self, finished, tmp_path):
        resume(finished.path, overrides=["training.epochs=5"], frontend=frontend())
        whole = train(load(tmp_path, MLP, "training.epochs=5", "checkpoint.keep_last=3"), runs_dir=tmp_path / "whole")
        assert differences(whole.run, finished) == []

    def test_early_stopping(self, tmp_path, messages):
        stopping = "training.early_stopping={patience: 1, min_delta: 1.0}"
        run = train(load(tmp_path, MLP, stopping), runs_dir=tmp_path, frontend=frontend()).run
        assert resume(run.path, overrides=["training.epochs=9"], frontend=frontend(say=messages.append)) is None
        assert "early stopping ended it after 2 epochs, nothing to do" in messages
        result = resume(
            run.path,
            unset=["training.early_stopping"],
            allow_change=["training.early_stopping"],
            frontend=frontend(say=messages.append),
        )
        assert (result.outcome, result.epochs_completed) == ("finished", 3)


class TestChanges:
    def test_refused_without_allow_change(self, stopped):
        before = files_of(stopped)
        with pytest.raises(UserError) as error:
            resume(stopped.path, overrides=["optimizer.lr=0.5", "training.clip_grad_norm=1"], frontend=frontend())
        assert "optimizer.lr: 0.05 in the checkpoint, 0.5 in the config" in str(error.value)
        assert "training.clip_grad_norm: None in the checkpoint, 1" in str(error.value)
        assert "--allow-change optimizer.lr" in str(error.value)
        assert files_of(stopped) == before

    def test_allowed(self, stopped, messages):
        overrides = ["optimizer.lr=0.5"]
        resume(stopped.path, overrides=overrides, allow_change=["optimizer.lr"], frontend=frontend(say=messages.append))
        assert "optimizer.lr: 0.05 -> 0.5" in messages
        rates = [record["lr"] for record in read_json_lines(stopped.metrics) if record["type"] == "step"]
        assert rates == [0.05] * 12 + [0.5] * 9

    def test_allowed_once_is_allowed_for_that_run(self, stopped):
        """Killed before its next checkpoint, the run goes on with what was changed; another change is refused."""
        with dying_in("trainkit.workflows.train.run.fit"), pytest.raises(SystemExit):
            resume(stopped.path, overrides=["optimizer.lr=0.5"], allow_change=["optimizer.lr"], frontend=frontend())
        with pytest.raises(UserError, match=r"optimizer.lr: 0.05 in the checkpoint, 0.7 in the config"):
            resume(stopped.path, overrides=["optimizer.lr=0.7"], frontend=frontend())
        resume(stopped.path, frontend=frontend())
        assert read_json_lines(stopped.metrics)[-1]["lr"] == 0.5

    def test_another_optimizer_is_refused(self, stopped):
        with pytest.raises(CheckpointError, match="saved with optimizer sgd, the config has adam"):
            resume(stopped.path, overrides=["optimizer=adam"], allow_change=["optimizer"], frontend=frontend())

    @pytest.mark.parametrize(
        ("optimizer", "change"), [("adam", "amsgrad=true"), ("rmsprop", "momentum=0.9"), ("rmsprop", "centered=true")]
    )
    def test_a_knob_that_needs_more_state_is_refused(self, tmp_path, optimizer, change):
        with pytest.raises(Interrupted):
            train(load(tmp_path, MLP, f"optimizer={optimizer}"), runs_dir=tmp_path / "r", frontend=frontend(stop_at=3))
        with pytest.raises(CheckpointError, match="its state lacks what that needs"):
            resume(
                runs_dir=tmp_path / "r",
                overrides=[f"optimizer.{change}"],
                allow_change=["optimizer"],
                frontend=frontend(),
            )

    def test_batches_cannot_change_in_the_middle_of_an_epoch(self, stopped):
        overrides, allowed = ["training.batch_size=100"], ["training.batch_size"]
        with pytest.raises(UserError, match="cannot change in the middle of an epoch"):
            resume(stopped.path, overrides=overrides, allow_change=allowed, frontend=frontend())

    def test_fewer_epochs_than_are_done_are_refused(self, stopped):
        before = files_of(stopped)
        with pytest.raises(UserError, match=r"training.epochs: 1, and the run is in epoch 2; with 2 it ends there"):
            resume(stopped.path, overrides=["training.epochs=1"], frontend=frontend())
        assert files_of(stopped) == before
        assert resume(stopped.path, overrides=["training.epochs=2"], frontend=frontend()).epochs_completed == 2

    def test_an_average_can_be_switched_on(self, stopped):
        overrides, allowed = ["training.ema={decay: 0.9}"], ["training.ema"]
        resume(stopped.path, overrides=overrides, allow_change=allowed, frontend=frontend())
        state = load_checkpoint(CheckpointFolder(stopped.checkpoints).last())
        assert state["ema"]["num_updates"] == STEPS - 12

    def test_changed_data_are_refused(self, tmp_path):
        rows = [[*np.random.default_rng(i).random(3).round(3), i % 2] for i in range(60)]

        def write(rows):
            (tmp_path / "data.csv").write_text("a,b,c,y\n" + "".join(",".join(map(str, row)) + "\n" for row in rows))

        write(rows)
        text = "dataset: {type: table, path: data.csv, target: y, task: classification, val_fraction: 0.2}\n"
        text += "model: {type: mlp, hidden_sizes: [4]}\ntraining: {epochs: 3, batch_size: 8}\nlogging: {every: 1}\n"
        folder = os.getcwd()
        os.chdir(tmp_path)
        try:
            with pytest.raises(Interrupted):
                train(load(tmp_path, text), runs_dir=tmp_path / "runs", frontend=frontend(stop_at=3))
            write([*rows[:-1], [9.0, 9.0, 9.0, 1]])
            run = newest_run(tmp_path / "runs")
            before = files_of(run)
            with pytest.raises(UserError, match="the data are not those that this run began with: ") as error:
                resume(run.path, frontend=frontend())
            assert files_of(run) == before
            assert "put them back as they were" in str(error.value)
            write(rows)
            assert resume(run.path, frontend=frontend()).epochs_completed == 3
        finally:
            os.chdir(folder)


def test_a_live_run_is_refused(stopped):
    context = multiprocessing.get_context("fork")
    holding, done = context.Event(), context.Event()

    def hold():
        with stopped.locked():
            holding.set()
            done.wait(60)

    holder = context.Process(target=hold)
    holder.start()
    try:
        assert holding.wait(30)
        before = files_of(stopped)
        with pytest.raises(RunLocked, match=f"process {holder.pid} on {socket.gethostname()} is working in this run"):
            resume(stopped.path, frontend=frontend())
        with pytest.raises(RunLocked):
            resume(runs_dir=stopped.path.parent, frontend=frontend())
        assert files_of(stopped) == before
    finally:
        done.set()
        holder.join()


def test_killed_before_its_first_checkpoint(tmp_path, made, messages):
    loaded = load(tmp_path, MLP, "checkpoint.keep_last=3")
    with dying_in("trainkit.workflows.train.recording.CheckpointFolder.save"), pytest.raises(SystemExit):
        train(loaded, runs_dir=tmp_path / "runs", frontend=frontend())
    run = newest_run(tmp_path / "runs")
    assert len(read_json_lines(run.metrics)) == 8
    resume(runs_dir=tmp_path / "runs", frontend=frontend(say=messages.append))
    assert "from the start: it has no checkpoint yet" in messages
    assert differences(newest_run(made / "finished"), run) == []


class TestCheckpoint:
    """``--resume CHECKPOINT``: a new folder that begins with the old history."""

    def test_ends_like_the_run_itself(self, stopped, made, tmp_path):
        before = files_of(stopped)
        loaded = load(tmp_path, MLP, "checkpoint.keep_last=3")
        result = train(loaded, runs_dir=tmp_path / "new", resume=stopped.checkpoints / "last", frontend=frontend())
        assert differences(newest_run(made / "finished"), result.run) == []
        assert files_of(stopped) == before

    def test_from_an_earlier_one(self, finished, made, tmp_path):
        first = next(finished.checkpoints.glob("*epoch01*"))
        loaded = load(tmp_path, MLP, "checkpoint.keep_last=3")
        result = train(loaded, runs_dir=tmp_path / "new", resume=first, frontend=frontend())
        assert differences(finished, result.run) == []

    def test_the_new_run_can_be_killed_at_once_and_resumed(self, stopped, made, tmp_path):
        loaded = load(tmp_path, MLP, "checkpoint.keep_last=3")
        with dying_in("trainkit.workflows.train.run.fit"), pytest.raises(SystemExit):
            train(loaded, runs_dir=tmp_path / "new", resume=stopped.checkpoints / "last", frontend=frontend())
        shutil.rmtree(stopped.path)
        run = newest_run(tmp_path / "new")
        resume(run.path, frontend=frontend())
        assert differences(newest_run(made / "finished"), run) == []

    def test_the_best_comes_along(self, tmp_path):
        """The best epoch lies before the checkpoint: the new folder has it too, and names it as its best."""
        loaded = load(tmp_path, MLP, TIES)
        with pytest.raises(Interrupted):
            train(loaded, runs_dir=tmp_path / "runs", frontend=frontend(stop_at=17))
        old = newest_run(tmp_path / "runs")
        result = train(loaded, runs_dir=tmp_path / "new", resume=old.checkpoints / "last", frontend=frontend())
        assert result.best_epoch == 1
        assert "epoch01" in result.best_checkpoint.name
        assert result.best_checkpoint.parent == result.run.checkpoints

    def test_a_checkpoint_without_its_folder(self, stopped, tmp_path, messages):
        alone = tmp_path / "alone.pth"
        shutil.copy(CheckpointFolder(stopped.checkpoints).last(), alone)
        loaded = load(tmp_path, MLP)
        result = train(loaded, runs_dir=tmp_path / "new", resume=alone, frontend=frontend(say=messages.append))
        assert "the best from here on takes its place" in messages
        assert (result.best_epoch or 0) > 1

    def test_what_is_no_checkpoint(self, tmp_path):
        bad = tmp_path / "x.pth"
        bad.write_bytes(b"<html>")
        for path in (bad, tmp_path / "gone.pth"):
            with pytest.raises(CheckpointError, match=path.name):
                train(load(tmp_path, MLP), runs_dir=tmp_path / "new", resume=path, frontend=frontend())
        assert not (tmp_path / "new").exists()


class TestInitFrom:
    def test_reports_what_fits(self, finished, tmp_path, messages):
        weights = CheckpointFolder(finished.checkpoints).last()
        loaded = load(tmp_path, MLP.replace("[16]", "[16, 8]"))
        train(loaded, runs_dir=tmp_path / "new", init_from=weights, frontend=frontend(say=messages.append))
        assert f"weights: 3 of 6 tensors taken from {weights}" in messages
        assert any(line.startswith("weights: missing: ") for line in messages)
        assert any(line.startswith("weights: wrong shape: ") for line in messages)

    def test_nothing_fits(self, finished, tmp_path):
        weights = CheckpointFolder(finished.checkpoints).last()
        with pytest.raises(CheckpointError, match="none of its 4 tensors fits the model"):
            train(load(tmp_path, CNN), runs_dir=tmp_path / "new", init_from=weights, frontend=frontend())
        assert not (tmp_path / "new").exists()

    def test_killed_before_its_first_epoch_it_still_begins_there(self, finished, tmp_path):
        weights, loaded = CheckpointFolder(finished.checkpoints).last(), load(tmp_path, MLP)
        whole = train(loaded, runs_dir=tmp_path / "whole", init_from=weights, frontend=frontend()).run

        with dying_in("trainkit.workflows.train.run.fit"), pytest.raises(SystemExit):
            train(loaded, runs_dir=tmp_path / "new", init_from=weights, frontend=frontend())
        weights.unlink()
        run = newest_run(tmp_path / "new")
        resume(run.path, frontend=frontend())
        assert differences(whole, run) == []


class TestDryRun:
    """``train --dry-run``: what training would refuse is refused, what it would say is said, and nothing is written."""

    @pytest.fixture
    def try_out(self, tmp_path, messages):
        def run(text=MLP, *overrides, resume=None, init_from=None, allow_change=()):
            loaded = load(tmp_path, text, *overrides)
            say, runs = frontend(say=messages.append), tmp_path / "runs"
            return dry_run(
                loaded, runs_dir=runs, resume=resume, init_from=init_from, allow_change=allow_change, frontend=say
            )

        return run

    def test_goes_on(self, stopped, try_out, messages):
        before = files_of(stopped)
        try_out(MLP, "checkpoint.keep_last=3", resume="auto")
        try_out(resume=stopped.path)
        last = CheckpointFolder(stopped.checkpoints).last()
        assert messages.count(f"would go on from {last}, after step 12") == 2
        assert files_of(stopped) == before
        assert list_runs(stopped.path.parent) == [stopped]

    def test_starts_from_weights(self, finished, try_out, messages):
        try_out(MLP.replace("[16]", "[16, 8]"), init_from=finished.path)
        assert "weights: 3 of 6 tensors taken from" in messages
        with pytest.raises(CheckpointError, match="none of its 4 tensors fits the model"):
            try_out(CNN, init_from=finished.path)

    def test_no_unfinished_run(self, finished, try_out, messages):
        try_out(resume="auto")
        assert "no unfinished run of this config, so a new one would start" in messages

    @pytest.mark.parametrize(
        ("overrides", "allowed", "message"),
        [
            (["optimizer={type: adamw}"], (), "the config has adamw"),
            (["model.hidden_sizes=[9]"], (), "--allow-change model.hidden_sizes"),
            (["model.hidden_sizes=[9]"], ["model.hidden_sizes"], "linear1.weight"),
            (["seed=4"], ["seed"], "the data are not those"),
        ],
    )
    def test_what_does_not_fit(self, finished, try_out, overrides, allowed, message):
        with pytest.raises(UserError, match=message):
            try_out(MLP, "training.epochs=5", *overrides, resume=finished.path, allow_change=allowed)

    def test_a_checkpoint_after_the_last_epoch(self, finished, try_out):
        with pytest.raises(UserError, match=r"after the last of 3 epochs; add --set training.epochs=N for more"):
            try_out(resume=finished.path)


@pytest.mark.parametrize("start", [train, dry_run])
def test_a_checkpoint_and_other_weights(start, finished, tmp_path):
    loaded, rest = load(tmp_path, MLP), {"runs_dir": tmp_path / "new", "allow_change": (), "frontend": frontend()}
    with pytest.raises(UserError, match="--init-from starts from others; give one of them"):
        start(loaded, resume=finished.path, init_from=finished.path, **rest)
    assert not (tmp_path / "new").exists()


class TestEvery:
    def steps_saved(self, tmp_path, every):
        loaded = load(tmp_path, MLP, f"checkpoint.every={every}", "checkpoint.keep_last=99")
        run = train(loaded, runs_dir=tmp_path / "runs", frontend=frontend()).run
        return [entry.step for entry in CheckpointFolder(run.checkpoints).entries()], run

    def test_steps(self, tmp_path, made):
        steps, run = self.steps_saved(tmp_path, "4st")
        assert {4, 8, 12, 16, 20, STEPS} <= set(steps)
        assert set(steps) <= {4, 8, 12, 16, 20, 7, 14, STEPS}, "between them only a best epoch"
        assert differences(newest_run(made / "finished"), run) == []

    def test_minutes(self, tmp_path, monkeypatch, made):
        """With a clock that goes a minute forward at each look."""
        from trainkit.engine import records

        class Clock:
            now = 0.0

            def monotonic(self):
                self.now += 60.0
                return self.now

            perf_counter = time.perf_counter

        monkeypatch.setattr(records, "time", Clock())
        steps, run = self.steps_saved(tmp_path, "3min")
        assert len(steps) > 5
        assert steps[-1] == STEPS
        assert differences(newest_run(made / "finished"), run) == []

    def test_a_stop_where_a_save_was_due_saves_once(self, tmp_path):
        with pytest.raises(Interrupted):
            train(
                load(tmp_path, MLP, "checkpoint.every=4st", "checkpoint.keep_last=99"),
                runs_dir=tmp_path / "runs",
                frontend=frontend(stop_at=4),
            )
        run = newest_run(tmp_path / "runs")
        assert [entry.step for entry in CheckpointFolder(run.checkpoints).entries()] == [4]


def test_a_stop_while_images_are_prepared_has_the_code_of_its_signal(tmp_path):
    from PIL import Image

    for label in "ab":
        (tmp_path / "images" / label).mkdir(parents=True)
        for number in range(20):
            Image.new("L", (8, 8), number).save(tmp_path / "images" / label / f"{number}.png")
    data = f"{{type: image_folder, root: {tmp_path / 'images'}, color: gray, val_fraction: 0.2}}"
    text = CNN.replace("{type: digits, val_fraction: 0.1, test_fraction: 0.2}", data).replace("200", "10")

    front = Frontend()
    front = Frontend(stop=front.stop, progress=lambda done, total: setattr(front.stop, "signum", signal.SIGTERM))
    with pytest.raises(Interrupted, match=r"stopped by SIGTERM: .*no step was taken|before the first step") as error:
        train(load(tmp_path, text), runs_dir=tmp_path / "runs", frontend=front)
    assert error.value.exit_code == 143
    assert not (tmp_path / "runs").exists()


def test_a_checkpoint_of_before_a_choice_was_stored_goes_on_and_is_scored(tmp_path, monkeypatch):
    """The choice of what is compiled is younger than the first checkpoints."""
    text = MLP.replace("precision: fp32", "precision: fp32, compile: false")
    whole = train(load(tmp_path, text), runs_dir=tmp_path / "whole", frontend=frontend()).run

    def older(loaded, setup):
        described = description(loaded, setup)
        del described["choices"]["compile"]
        return described

    with monkeypatch.context() as before:
        before.setattr("trainkit.workflows.train.run.description", older)
        with pytest.raises(Interrupted):
            train(load(tmp_path, text), runs_dir=tmp_path / "runs", frontend=frontend(stop_at=9))
    (run,) = list_runs(tmp_path / "runs")
    checkpoint = CheckpointFolder(run.checkpoints).last()
    assert "compile" not in load_checkpoint(checkpoint)["choices"]
    assert 0 <= evaluate(checkpoint, split="val").metrics["accuracy"] <= 1
    resume(run.path, frontend=frontend())
    assert differences(whole, run) == []


@pytest.mark.parametrize("optimizer", ["{type: sgd, lr: 0.05, momentum: 0.9}", "{type: adamw, lr: 0.01}"])
def test_a_resume_in_the_other_memory_layout_goes_on_as_before(tmp_path, messages, optimizer):
    """As `trainkit bench` may advise. The state of a fused optimizer once belonged to other weights then."""
    text = CNN.replace("{type: sgd, lr: 0.05, momentum: 0.9}", optimizer).replace(
        "norm: batch, dropout: 0.2", "norm: none"
    )
    with pytest.raises(Interrupted):
        train(load(tmp_path, text), runs_dir=tmp_path / "runs", frontend=frontend(stop_at=9))
    (run,) = list_runs(tmp_path / "runs")
    whole = train(load(tmp_path, text), runs_dir=tmp_path / "whole", frontend=frontend()).run
    resume(run.path, overrides=["training.channels_last=false"], frontend=frontend(say=messages.append))
    assert "training.channels_last is False, and was auto when the checkpoint was saved" in messages
    last = [torch.load(CheckpointFolder(one.checkpoints).last(), weights_only=True)["model"] for one in (whole, run)]
    for name, tensor in last[0].items():
        torch.testing.assert_close(last[1][name], tensor, rtol=1e-3, atol=2e-3)


def test_another_version_or_thread_count_is_noted(stopped, messages, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "99.0")
    resume(stopped.path, frontend=frontend(say=messages.append))
    assert "torch is 99.0, and was " in messages


def test_each_step_once_after_a_chain_of_stops(tmp_path):
    run = train_with_stops(load(tmp_path, MLP), tmp_path / "runs", [3, 3 + 4, 15, 21])
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert [line["step"] for line in lines if line["type"] == "step"] == list(range(1, STEPS + 1))
    assert [line["epoch"] for line in lines if line["type"] == "epoch"] == [1, 2, 3]


def test_a_run_keeps_its_pieces_where_the_config_does_not_name_them(tmp_path, capsys):
    """Another number of processes goes on with it, if they can share the pieces."""
    from trainkit.cli.options import load as load_for

    runs, loaded = tmp_path / "runs", load(tmp_path, MLP, "training.accumulation_steps=4")
    with pytest.raises(Interrupted):
        train(loaded, runs_dir=runs, frontend=frontend(stop_at=1))
    run, path = newest_run(runs).path, loaded.path

    def pieces(ranks: int, *changes: str) -> int:
        config = load_for(path, list(changes), None, ranks=ranks, unfinished_in=runs).config
        return config.training.accumulation_steps

    assert [pieces(1), pieces(2)] == [4, 4]
    assert f"training.accumulation_steps: 4, as {run} has it" in capsys.readouterr().err
    assert pieces(2, "training.accumulation_steps=2") == 2  # it is named
    assert pieces(2, "seed=5") == 2  # the run of another config
    with pytest.raises(UserError, match="3 processes cannot share 4 pieces of a batch evenly") as error:
        pieces(3)
    assert "this number of processes: 1, 2, 4; or" in str(error.value)
    with pytest.raises(UserError) as own:
        load_for(newest_run(runs).resolved_config, [], None, ranks=3, run=run)
    assert str(own.value) == str(error.value)
    command = str(error.value).rpartition(f"trainkit resume {run} --nproc 3 ")[2].split()
    assert command == ["--set", "training.accumulation_steps=6", "--allow-change", "training.accumulation_steps"]
