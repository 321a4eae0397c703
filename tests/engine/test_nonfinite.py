"""NaN and Inf in data, loss, gradients or buffers at any step: stopped within one step, and no bad checkpoint."""

import math

import file_layers
import pytest
import torch
from engine_runs import CNN, STEPS, StopAt, differences, frontend, load

from trainkit.engine.nonfinite import NonFiniteError
from trainkit.errors import TrainkitError
from trainkit.recorders.logs import read_json_lines
from trainkit.system.frontend import Frontend
from trainkit.system.run_folder import newest_run
from trainkit.workflows.train.run import resume, train

PLACES = ["data", "loss", "gradient", "buffer"]


@pytest.fixture(autouse=True)
def no_waiting():
    with file_layers.installed(file_layers.SYNC_FREE):
        yield


def poison(model, where: str, value: float, steps: set[int], *, done: int = 0) -> None:
    """Put ``value`` into one place of the model's work at the given training steps (1-based)."""
    step = done

    def before(module, inputs):
        nonlocal step
        if not module.training:
            return None
        step += 1
        if step in steps and where == "data":
            return (inputs[0].index_fill(0, torch.tensor([0], device=inputs[0].device), value),)
        if step in steps and where == "buffer":
            next(b for b in module.buffers() if b.is_floating_point())[0] = value
        return None

    def after(module, inputs, outputs):
        return outputs * value if module.training and step in steps and where == "loss" else None

    model.register_forward_pre_hook(before)
    model.register_forward_hook(after)
    weight = next(model.parameters())
    weight.register_hook(lambda gradient: gradient * value if step in steps and where == "gradient" else gradient)


def poisoned(where: str, value: float, steps: set[int], *, done: int = 0, stop_at: int | None = None) -> Frontend:
    def make_display(setup, batches):
        poison(setup.model, where, value, steps, done=done)
        return StopAt(front, stop_at)

    front = Frontend(make_display=make_display)
    return front


def states(run):
    return [torch.load(path, weights_only=True) for path in sorted(run.checkpoints.glob("*.pth"))]


def all_finite(value) -> bool:
    match value:
        case torch.Tensor():
            return bool(torch.isfinite(value.float()).all())
        case dict():
            return all(all_finite(item) for item in value.values())
        case list() | tuple():
            return all(all_finite(item) for item in value)
    return True


@pytest.mark.parametrize("step", [1, 7, 8, 13, STEPS])
@pytest.mark.parametrize("where", PLACES)
def test_stops_at_that_step(tmp_path, where, step):
    value = [math.nan, math.inf, -math.inf][step % 3]
    loaded = load(tmp_path, CNN, "checkpoint.every=1st", "training.ema={decay: 0.9}")
    with pytest.raises(
        NonFiniteError, match=rf"^step {step}: the loss is .*; learning rate 0.05, training samples \d+"
    ):
        train(loaded, runs_dir=tmp_path / "runs", frontend=poisoned(where, value, {step}))
    run = newest_run(tmp_path / "runs")
    assert max((record["step"] for record in read_json_lines(run.metrics)), default=0) == step - 1
    saved = states(run)
    assert all(state["progress"]["steps_completed"] < step for state in saved)
    assert all(all_finite(state) for state in saved)
    assert run.status().startswith(f"failed: step {step}: ")


@pytest.mark.parametrize(("where", "word"), [("gradient", "a gradient"), ("buffer", "the buffer .*running_mean")])
def test_says_what_is_not_finite(tmp_path, where, word):
    with pytest.raises(NonFiniteError, match=rf"step 2: the loss is [\d.]+ but {word} is not finite"):
        train(load(tmp_path, CNN), runs_dir=tmp_path, frontend=poisoned(where, math.nan, {2}))


def test_weights_that_overflow_are_never_saved(tmp_path):
    """A step of finite gradients can still end at infinity: the next step, or the save, refuses."""
    with pytest.raises(TrainkitError, match=r"step 2: the loss is|not saved: NaN or infinity in model\."):
        train(load(tmp_path, CNN, "optimizer.lr=3e38", "checkpoint.every=1st"), runs_dir=tmp_path / "runs")
    assert all(all_finite(state["model"]) for state in states(newest_run(tmp_path / "runs")))


SKIP = "training.on_non_finite={type: skip, limit: 3}"


@pytest.mark.parametrize("where", ["data", "loss", "gradient"])
def test_skipped_steps_leave_no_trace(tmp_path, where):
    """Weights, averages and batch-norm statistics are as if the step had not been; it is counted."""
    loaded = load(tmp_path, CNN, SKIP, "checkpoint.every=1st", "checkpoint.keep_last=99", "training.ema={decay: 0.9}")
    result = train(loaded, runs_dir=tmp_path / "runs", frontend=poisoned(where, math.nan, {3, 4, 12}))
    saved = {state["progress"]["steps_completed"]: state for state in states(result.run)}
    for part in ("model", "ema", "optimizer"):
        assert str(saved[2][part]) == str(saved[3][part]) == str(saved[4][part]), part
        assert str(saved[4][part]) != str(saved[5][part])
    assert saved[STEPS]["progress"]["steps_skipped"] == 3
    assert read_json_lines(result.run.metrics)[-1]["steps_skipped"] == 3
    assert all(all_finite(state) for state in saved.values())


def test_the_limit_of_skipped_steps(tmp_path):
    with pytest.raises(NonFiniteError, match=r"step 9: .*\(3 steps skipped before: training.on_non_finite.limit\)"):
        train(load(tmp_path, CNN, SKIP), runs_dir=tmp_path, frontend=poisoned("loss", math.nan, {2, 3, 8, 9}))


def test_the_limit_counts_over_a_resume(tmp_path):
    loaded, bad = load(tmp_path, CNN, SKIP), {2, 3, 8, 9}
    with pytest.raises(TrainkitError, match="SIGTERM"):
        train(loaded, runs_dir=tmp_path / "runs", frontend=poisoned("loss", math.nan, bad, stop_at=5))
    with pytest.raises(NonFiniteError, match=r"step 9: .*\(3 steps skipped before"):
        resume(runs_dir=tmp_path / "runs", frontend=poisoned("loss", math.nan, bad, done=5))


def test_an_epoch_of_skipped_steps_only(tmp_path):
    """Its losses are not numbers, nothing improves by them, and the run goes on."""
    loaded = load(
        tmp_path,
        CNN,
        "training.on_non_finite={type: skip, limit: 7}",
        "checkpoint.monitor=train_loss",
        "scheduler={type: reduce_on_plateau, patience: 0, monitor: train_loss}",
        "training.early_stopping={patience: 9, monitor: train_loss}",
    )
    result = train(loaded, runs_dir=tmp_path / "runs", frontend=poisoned("loss", math.nan, set(range(8, 15))))
    epochs = [record for record in read_json_lines(result.run.metrics) if record["type"] == "epoch"]
    assert [epoch["train_loss"] is None for epoch in epochs] == [False, True, False]
    assert [epoch["best"] for epoch in epochs][1] is False
    assert result.best_epoch in (1, 3)


def test_a_first_epoch_of_skipped_steps_only(tmp_path):
    loaded = load(tmp_path, CNN, "training.on_non_finite={type: skip, limit: 7}", "checkpoint.monitor=train_loss")
    result = train(loaded, runs_dir=tmp_path / "runs", frontend=poisoned("loss", math.nan, set(range(1, 8))))
    assert result.best_epoch is not None
    assert result.best_epoch > 1


def test_lbfgs_goes_back_to_where_it_was(tmp_path):
    loaded = load(tmp_path, CNN, SKIP, "optimizer={type: lbfgs, lr: 0.3, max_iter: 2}", "checkpoint.every=1st")
    result = train(loaded, runs_dir=tmp_path / "runs", frontend=poisoned("loss", math.nan, {5}))
    assert result.outcome == "finished"
    assert read_json_lines(result.run.metrics)[-1]["steps_skipped"] == 1
    assert all(all_finite(state["model"]) for state in states(result.run))


class TestLossScale:
    """fp16's scaler, here on the CPU with fp32, where the same objects work."""

    @pytest.fixture(autouse=True)
    def scaled(self, monkeypatch):
        from trainkit.builders.setup import Setup

        build = Setup.state

        def build_scaled(setup, **knobs):
            state = build(setup, **knobs)
            state.scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=4)
            return state

        monkeypatch.setattr(Setup, "state", build_scaled)

    def test_an_overflow_halves_the_scale_and_goes_on(self, tmp_path):
        loaded = load(tmp_path, CNN, "checkpoint.every=1st", "checkpoint.keep_last=99")
        result = train(loaded, runs_dir=tmp_path / "runs", frontend=poisoned("gradient", math.inf, {2}))
        saved = {state["progress"]["steps_completed"]: state for state in states(result.run)}
        assert [saved[step]["scaler"]["scale"] for step in (1, 2, 6)] == [8.0, 4.0, 8.0]
        assert (saved[STEPS]["progress"]["overflows"], saved[STEPS]["progress"]["steps_skipped"]) == (1, 0)
        weights = [name for name in saved[1]["model"] if "weight" in name]
        assert all(torch.equal(saved[1]["model"][name], saved[2]["model"][name]) for name in weights)

    def test_at_a_scale_of_one_the_gradients_are_at_fault(self, tmp_path):
        with pytest.raises(NonFiniteError, match=r"step 4: .* but a gradient is not finite"):
            train(load(tmp_path, CNN), runs_dir=tmp_path, frontend=poisoned("gradient", math.inf, set(range(1, 9))))

    def test_the_scale_is_resumed(self, tmp_path):
        whole = train(load(tmp_path, CNN), runs_dir=tmp_path / "whole", frontend=frontend())
        with pytest.raises(TrainkitError, match="SIGTERM"):
            train(load(tmp_path, CNN), runs_dir=tmp_path / "runs", frontend=frontend(stop_at=6))
        result = resume(runs_dir=tmp_path / "runs", frontend=frontend())
        assert differences(whole.run, result.run) == []
