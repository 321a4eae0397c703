"""What a display is told while a run trains, and that it cannot stop the run."""

import pytest
from engine_runs import MLP, StopAt, differences, frontend, load

from trainkit.errors import Interrupted
from trainkit.system.frontend import Frontend
from trainkit.system.run_folder import newest_run
from trainkit.workflows.train.run import resume, train

pytestmark = pytest.mark.usefixtures("fast_runs")


class Watching(StopAt):
    """A display that keeps what it is told; it fails at one call."""

    def __init__(self, told, frontend, stop_at=None, fail_at=None):
        super().__init__(frontend, stop_at)
        self.told, self.fail_at = told, fail_at

    def show_batches(self, *told):
        self.told.append(told)
        if len(self.told) == self.fail_at:
            raise OSError("the terminal is gone")


def watching(told, **options):
    front = Frontend(make_display=lambda setup, batches: Watching(told, front, **options))
    return front


def whole(epoch, start=0):
    return [*(("train", epoch, done, 7) for done in range(start, 8)), ("val", epoch, 0, 1), ("val", epoch, 1, 1)]


def test_every_batch_is_shown_also_after_a_resume(tmp_path):
    told = []
    with pytest.raises(Interrupted):
        train(load(tmp_path, MLP), runs_dir=tmp_path / "runs", frontend=watching(told, stop_at=10))
    assert told == [*whole(0), *whole(1)[:3]]
    told.clear()
    resume(runs_dir=tmp_path / "runs", frontend=watching(told))
    assert told == [*whole(1, start=3), *whole(2)]


def test_a_display_that_fails_stops_neither_the_run_nor_its_other_lines(tmp_path):
    told = []
    train(load(tmp_path, MLP), runs_dir=tmp_path / "failing", frontend=watching(told, fail_at=5))
    train(load(tmp_path, MLP), runs_dir=tmp_path / "plain", frontend=frontend())
    assert told == [*whole(0)[:5], *[one for epoch in range(3) for one in whole(epoch) if one[0] == "val"]]
    assert differences(newest_run(tmp_path / "failing"), newest_run(tmp_path / "plain")) == []
