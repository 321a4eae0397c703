"""Logs of lines: torn lines go, records of a lost future go, errors leave whole lines."""

import json
import os
from pathlib import Path

import pytest
from file_layers import SYNC_FREE, Failing, Recording, crash_states, installed
from hypothesis import given
from hypothesis import strategies as st

from trainkit.recorders.logs import JsonLines, read_json_lines
from trainkit.system import durable


def steps(path: Path) -> list[int]:
    return [record["step"] for record in read_json_lines(path)]


def test_log_and_read(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with JsonLines(path) as log:
        log.log({"step": 1, "loss": 0.5, "name": "ä"})
        log.log({"step": 2, "loss": float("nan")})
    assert read_json_lines(path) == [{"step": 1, "loss": 0.5, "name": "ä"}, {"step": 2, "loss": None}]
    assert read_json_lines(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize("tail", [b'{"step": 3', b"\0\0\0\0", b'{"step": 3}'])
def test_a_torn_last_line_is_taken_off(tmp_path, tail):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2}\n' + tail)
    assert steps(path) == [1, 2]
    with JsonLines(path) as log:
        log.log({"step": 3})
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3}\n'


def test_truncate_after(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with JsonLines(path) as log:
        for step in range(1, 8):
            log.log({"type": "step", "step": step})
        log.log({"type": "note"})
        assert log.truncate_after(4) == 3
        assert log.truncate_after(4) == 0
        log.log({"type": "step", "step": 5})
    assert [record.get("step") for record in read_json_lines(path)] == [1, 2, 3, 4, None, 5]


def test_rubbish_in_the_middle_goes_with_the_next_resume(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n\0\0\0\0{"step": 2}\nnonsense\n[3]\n{"step": 4}\n')
    with JsonLines(path) as log:
        log.truncate_after(4)
    assert steps(path) == [1, 4]


@given(st.lists(st.integers(0, 20), max_size=8))
def test_each_step_once_after_any_crashes(tmp_path_factory, resumes):
    """Runs of 3 steps each, resumed from any step: the log is that of one run."""
    path = tmp_path_factory.mktemp("log") / "metrics.jsonl"
    step = 0
    for resume in resumes:
        with JsonLines(path) as log:
            step = min(step, resume)
            log.truncate_after(step)
            for _ in range(3):
                step += 1
                log.log({"step": step})
    assert steps(path) == list(range(1, step + 1))


def test_an_error_leaves_whole_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = JsonLines(path)
    log.log({"step": 1})
    with installed(Failing("write", 0)), pytest.raises(durable.WriteError, match="the lines before are intact"):
        log.log({"step": 2, "text": "long enough to be torn"})
    assert path.read_text() == '{"step": 1}\n'
    log.log({"step": 2})
    assert steps(path) == [1, 2]
    with installed(Failing("fsync", 0)), pytest.raises(durable.WriteError):
        log.sync()
    with pytest.raises(AssertionError):
        log.sync()  # a second fsync would say that all is well


@pytest.mark.parametrize("without", [None, "fsync metrics.jsonl", "folder after metrics.jsonl"])
def test_losses_of_power(tmp_path, without):
    """What was synced is there, and lines are whole; and this test sees it when an fsync is left out."""
    folder = tmp_path / "run"
    folder.mkdir()
    layer = Recording(folder)
    with installed(layer), JsonLines(folder / "metrics.jsonl") as log:
        for step in range(1, 13):
            log.log({"step": step})
            if step % 3 == 0:
                log.sync()
                layer.mark(str(step))
            if step == 8:
                log.truncate_after(7)
                log.log({"step": 8})
    found, lost = tmp_path / "found", 0
    found.mkdir()
    for marks, files in crash_states(layer.events, seed=0, without=without):
        path = found / "metrics.jsonl"
        path.unlink(missing_ok=True)
        if "metrics.jsonl" in files:
            path.write_bytes(files["metrics.jsonl"])
        with installed(SYNC_FREE), JsonLines(path) as log:
            log.truncate_after(10**6)
        synced = int(marks[-1]) if marks else 0
        expected = list(range(1, synced + 1))
        lost += [step for step in steps(path) if step <= synced] != expected
    assert (lost > 0) == (without is not None)


def test_lines_are_plain_json(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with JsonLines(path) as log:
        log.log({"step": 1, "metrics": {"a": [1.0, float("-inf")]}})
    assert json.loads(path.read_text()) == {"step": 1, "metrics": {"a": [1.0, None]}}
    assert os.listdir(tmp_path) == ["metrics.jsonl"]
