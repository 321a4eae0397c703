"""What is done after the last epoch is shown and timed, stage by stage."""

import re
import signal
from types import SimpleNamespace

import pytest
from engine_runs import MLP, load

from trainkit.errors import Interrupted
from trainkit.system.frontend import Frontend
from trainkit.workflows.train.run import train

STAGES = ["scores", "export", "findings", "report"]


class Clock:
    """A clock that goes on by some seconds each time that somebody looks."""

    def __init__(self, seconds):
        self.now, self.seconds = 0.0, seconds

    def __call__(self):
        self.now += self.seconds
        return self.now


@pytest.fixture
def quick(tmp_path):
    return load(tmp_path, MLP, "training.epochs=1", "export.torchscript=false")


def test_stages_are_shown_timed_and_kept(quick, tmp_path, monkeypatch):
    monkeypatch.setattr("trainkit.system.frontend.time", SimpleNamespace(monotonic=Clock(2)))
    shown, said = [], []
    front = Frontend(say=said.append, show_stage=shown.append)
    for number in range(2):  # a frontend that is used again starts anew
        result = train(quick, runs_dir=tmp_path / f"runs{number}", frontend=front)
        line = "after the last epoch: scores 2.0 s, export 2.0 s, findings 2.0 s, report 2.0 s"
        assert said[-1] == line
        assert line in result.run.log.read_text()
        assert result.run.read_info()["stage_seconds"] == dict.fromkeys(STAGES, 2.0)
        page = (result.run.path / "report.html").read_text()
        assert "After the last epoch: scores 2.0 s, export 2.0 s." in page
    assert shown == [step for name in STAGES for step in (name, None)] * 2


def test_short_stages_are_no_news(quick, tmp_path, monkeypatch):
    monkeypatch.setattr("trainkit.system.frontend.time", SimpleNamespace(monotonic=Clock(0.01)))
    said = []
    result = train(quick, runs_dir=tmp_path / "runs", frontend=Frontend(say=said.append))
    assert not [line for line in said if line.startswith("after the last epoch")]
    assert "After the last epoch" not in (result.run.path / "report.html").read_text()


def test_a_stop_ends_the_stage(quick, tmp_path):
    shown = []

    def show(name):
        shown.append(name)
        if name == "scores":
            front.stop.signum = signal.SIGTERM

    front = Frontend(show_stage=show)
    with pytest.raises(Interrupted, match=re.escape("training is complete and saved")):
        train(quick, runs_dir=tmp_path / "runs", frontend=front)
    assert shown == ["scores", None]
