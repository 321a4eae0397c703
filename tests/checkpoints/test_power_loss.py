"""Losses of power at every moment of many saves: each folder that may be found then recovers."""

from pathlib import Path

import pytest
from checkpoint_checks import NaiveFolder, problems_after_crash, save
from file_layers import SYNC_FREE, Failing, Killed, Recording, crash_states, installed

from trainkit.checkpoints.folder import CheckpointFolder
from trainkit.system import durable

BESTS = {1, 2, 5, 6}


def record(folder: Path, kind: type[CheckpointFolder] = CheckpointFolder) -> Recording:
    """Eight saves of one process, with the run killed once between the publishing of a file and the journal."""
    folder.mkdir()
    layer = Recording(folder)
    with installed(layer):
        checkpoints = kind(folder)
        for step in range(1, 9):
            best = step in BESTS
            layer.mark(f"saving {step}{' best' if best else ''}")
            if step == 4 and kind is CheckpointFolder:
                with installed(Failing("open", 1, kill=True, real=durable.ops)), pytest.raises(Killed):
                    save(checkpoints, step, keep_last=1)
                checkpoints = kind(folder)
                checkpoints.recover()
            else:
                save(checkpoints, step, best=best, keep_last=1 + step % 2)
            layer.mark(f"saved {step}{' best' if best else ''}")
    return layer


@pytest.fixture
def fast_folder(tmp_path: Path):
    """States are written and read thousands of times: without waiting for the disk."""
    with installed(SYNC_FREE):
        yield tmp_path / "found"


def findings(layer: Recording, folder: Path, *, each: int = 3, without: str | None = None, stop_at_first: bool = False):
    number, bad = 0, []
    for number, (marks, files) in enumerate(crash_states(layer.events, seed=0, each=each, without=without), 1):  # noqa: B007
        folder.mkdir(exist_ok=True)
        for path in folder.iterdir():
            path.unlink()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        problems = problems_after_crash(folder, marks)
        bad += [(marks[-1:], problems)] if problems else []
        if bad and stop_at_first:
            break
    return number, bad


@pytest.mark.slow
def test_every_state_after_a_loss_of_power_recovers(tmp_path, fast_folder):
    layer = record(tmp_path / "run")
    number, bad = findings(layer, fast_folder)
    assert bad == []
    assert number >= 1000


LABELS = [
    "fsync checkpoint",
    "folder after checkpoint",
    "fsync journal",
    "fsync pointer",
    "folder after pointer",
]


def test_the_labels_are_those_of_all_fsyncs(tmp_path):
    layer = record(tmp_path / "run")
    assert sorted({event.label for event in layer.events if event.label}) == sorted(LABELS)


@pytest.mark.parametrize("label", LABELS)
def test_no_fsync_can_be_left_out(tmp_path, fast_folder, label):
    layer = record(tmp_path / "run")
    _, bad = findings(layer, fast_folder, each=6, without=label, stop_at_first=True)
    assert bad, f"without {label} every state recovers: it is not needed"


def test_a_naive_writer_is_caught(tmp_path, fast_folder):
    layer = record(tmp_path / "run", NaiveFolder)
    _, bad = findings(layer, fast_folder, stop_at_first=True)
    assert bad
