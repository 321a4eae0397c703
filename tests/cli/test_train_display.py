"""The bar of a training: it moves with the steps, and has a rate before anything is logged."""

import io
import sys

import pytest

from trainkit.cli.train import show_curves
from trainkit.cli.train_display import TrainDisplay, fitting
from trainkit.recorders import History


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    """Seconds that only a test lets pass."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("trainkit.cli.train_display.time.monotonic", clock)
    return clock


@pytest.fixture
def display(monkeypatch, clock):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("COLUMNS", "200")
    display = TrainDisplay(epochs=3, batches_per_epoch=40, batch_size=8)
    yield display
    display.close()


def train(display, clock, *, epoch=0, first=0, last=40, seconds=0.05):
    """Steps that take so long; what the bar shows after each: its steps and its numbers."""
    shown = []
    display.show_batches("train", epoch, first, 40)
    for done in range(first + 1, last + 1):
        clock.now += seconds
        display.show_batches("train", epoch, done, 40)
        task = display.bar[0].tasks[0]
        shown.append((task.completed, task.fields["numbers"], task.description))
    return shown


def test_every_step_moves_it_and_the_rate_is_there_at_once(display, clock):
    shown = train(display, clock, seconds=0.5)
    assert [steps for steps, _, _ in shown] == list(range(1, 41))
    assert {numbers for _, numbers, _ in shown} == {"16 samples/s"}
    assert train(display, clock, epoch=1, seconds=0.25)[0] == (41, "32 samples/s", "epoch 2/3")


def test_ten_times_a_second_at_most(display, clock):
    steps = [steps for steps, _, _ in train(display, clock, seconds=0.03)]
    assert set(steps) == set(range(0, 41, 4))
    assert steps[-1] == 40, "the last step of an epoch is always shown"


def test_a_slow_first_step_does_not_spoil_the_rate_for_long(display, clock):
    train(display, clock, last=1, seconds=60)
    assert display.rate == "0 samples/s"
    for epoch in (0, 1):
        train(display, clock, epoch=epoch, first=1, seconds=0.1)
    assert display.rate == "80 samples/s"


def test_a_resumed_epoch_goes_on_where_it_was(display, clock):
    assert train(display, clock, epoch=2, first=30, seconds=0.1)[0] == (111, "80 samples/s", "epoch 3/3")


def test_validation_is_shown_and_does_not_count_as_steps(display, clock):
    train(display, clock)
    clock.now += 1
    display.show_batches("val", 0, 3, 7)
    task = display.bar[0].tasks[0]
    assert (task.completed, task.fields["numbers"]) == (40, "validation 3/7")


def test_losses_come_from_the_log(display, clock):
    display.log({"type": "step", "mean_loss": 0.25, "mean_accuracy": 0.5, "lr": 0.1, "step": 1})
    (*_, (_, numbers, _)) = train(display, clock)
    assert numbers == "acc 0.5000  loss 0.2500  lr 0.1  160 samples/s"


@pytest.mark.parametrize(
    ("room", "line"), [(9, "a 1  b 22"), (8, "b 22"), (4, "b 22"), (3, "b 22"), (float("inf"), "a 1  b 22")]
)
def test_parts_that_do_not_fit_are_dropped(room, line):
    assert fitting({"a": "a 1", "b": "b 22", "empty": ""}, ("a", "none"), room) == line


def epoch_record(epoch):
    return {"type": "epoch", "epoch": epoch, "step": 40 * epoch, "train_loss": 0.5, "lr": 0.1, "best": False}


def test_the_line_of_an_epoch_has_its_own_time_also_after_a_resume(clock, capsys):
    display = TrainDisplay(epochs=3, batches_per_epoch=40, batch_size=8)
    for epoch, first in ((1, 10), (2, 0)):
        clock.now += 100  # before the first batch of an epoch
        display.show_batches("train", epoch, first, 40)
        clock.now += 7
        display.log(epoch_record(epoch + 1))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"epoch {epoch}/3  train loss 0.5000  lr 0.1  7.0 s" for epoch in (2, 3)]


def test_training_accuracy_of_mixed_batches_says_what_it_is_against(capsys):
    record = {**epoch_record(1), "train_accuracy": 0.5, "train_accuracy_against": "larger share", "val_accuracy": 0.75}
    TrainDisplay(epochs=3, batches_per_epoch=40, batch_size=8).log(record)
    assert "train loss 0.5000 acc (larger share) 0.5000  val acc 0.7500" in capsys.readouterr().err


@pytest.mark.parametrize(("best", "named"), [((1, 3), 3), ((1,), 2), ((), 2)])
def test_of_equal_values_that_of_the_checkpoint_is_the_best(capsys, best, named):
    values = {1: 0.5, 2: 0.75, 3: 0.75, 4: 0.75}
    epochs = [{"epoch": epoch, "val_accuracy": value, "val_loss": 1 - value} for epoch, value in values.items()]
    show_curves(History(tuple(record | {"best": record["epoch"] in best} for record in epochs), ()))
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines() if line] == [f"{named}"] * 2


def test_quiet_shows_nothing(monkeypatch, clock):
    monkeypatch.setattr(sys, "stderr", Terminal())
    display = TrainDisplay(epochs=3, batches_per_epoch=40, batch_size=8, quiet=True)
    display.show_batches("train", 0, 0, 40)
    display.log(epoch_record(1))
    display.close()
    assert sys.stderr.getvalue() == ""
