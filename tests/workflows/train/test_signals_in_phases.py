"""Stop signals in every phase of a real run: the right exit code, and a resume that is bitwise equal."""

import signal
import socket
from pathlib import Path

import numpy as np
import pytest
from engine_runs import CNN, differences
from PIL import Image
from real_processes import ForkServer

from trainkit.recorders.logs import read_json_lines
from trainkit.system.run_folder import newest_run

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="needs fork and SIGUSR1")
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 138, signal.SIGUSR2: 140, signal.SIGHUP: 129}
PHASES = [("preparation", 1), ("training", 4), ("validation", 2), ("saving", 3), ("scoring", 1)]
PHASES += [("export", 1), ("export: a format", 1), ("export: checking", 1)]


@pytest.fixture(scope="module")
def server():
    one = ForkServer()
    yield one
    one.close()


def prepare(folder: Path) -> Path:
    """A config of 90 images in files, and the cache that they are decoded into."""
    rng = np.random.default_rng(0)
    for label in range(3):
        images = folder / "images" / f"class{label}"
        images.mkdir(parents=True)
        for number in range(30):
            pixels = rng.integers(0, 100, (8, 8), dtype=np.uint8) + 50 * label
            Image.fromarray(pixels.astype(np.uint8)).save(images / f"{number}.png")
    data = "{type: image_folder, root: images, color: gray, val_fraction: 0.2, test_fraction: 0.1}"
    text = CNN.replace("{type: digits, val_fraction: 0.1, test_fraction: 0.2}", data)
    text = text.replace("batch_size: 200", "batch_size: 20, eval_batch_size: 5").replace("epochs: 3", "epochs: 2")
    (folder / "config.yaml").write_text(text)
    return folder


@pytest.fixture
def place(tmp_path):
    return prepare(tmp_path)


@pytest.fixture(scope="module")
def whole(server, tmp_path_factory):
    """The run that is left alone."""
    folder = prepare(tmp_path_factory.mktemp("whole"))
    assert server.trainkit(*TRAIN, "runs", cwd=folder).code == 0
    return newest_run(folder / "runs")


TRAIN = ("train", "config.yaml", "--run-dir")


EVERY = [(phase, at, signum) for phase, at in PHASES for signum in CODES]
LONG = ("export", "export: a format")
USUAL = [case for case in EVERY if case[0] == "training" or (case[2] == signal.SIGTERM and case[0] not in LONG)]


@pytest.mark.parametrize(
    ("phase", "at", "signum"),
    [case if case in USUAL else pytest.param(*case, marks=pytest.mark.slow) for case in EVERY],
)
def test_a_signal_in_each_phase(server, whole, place, phase, at, signum):
    cache = {"environment": {"TRAINKIT_CACHE": str(place / "cache")}}
    export = ("--set", "export.torchscript=true") if phase.startswith("export") else ()
    ended = server.trainkit(*TRAIN, "runs", *export, cwd=place, signal=signum, phase=phase, at=at, **cache)
    assert ended.code == CODES[signum], ended.output
    assert f"stopped by {signum.name}: " in ended.output
    assert "Traceback" not in ended.output
    run = newest_run(place / "runs")
    if phase == "preparation":
        assert run is None
        assert "no step was taken" in ended.output
        assert not (place / "runs").exists()
    else:
        assert run.status() == "interrupted"
    if export:
        assert "the export was given up; training is complete and saved" in ended.output
        assert not run.exports.exists() or list(run.exports.iterdir()) == []
    ended = server.trainkit(*TRAIN, "runs", "--resume", "auto", *export, cwd=place, **cache)
    assert ended.code == 0, ended.output
    run = newest_run(place / "runs")
    assert len(list((place / "runs").iterdir())) == 1
    assert differences(whole, run) == []
    assert len(run.read_info()["exports"]) == (1 if export else 0)


@pytest.mark.parametrize("phase", ["training", "validation", "saving"])
def test_a_second_sigint_ends_at_once_without_harm(server, whole, place, phase):
    at = dict(PHASES)[phase] + 3
    ended = server.trainkit(*TRAIN, "runs", cwd=place, signal=signal.SIGINT, phase=phase, at=at, times=2)
    assert ended.code == 130
    assert "stopped by" not in ended.output
    run = newest_run(place / "runs")
    assert run.status() == "interrupted (killed)"
    assert server.trainkit("resume", cwd=place).code == 0
    assert differences(whole, newest_run(place / "runs")) == []


def test_an_export_is_given_up_between_its_formats(server, whole, place):
    ended = server.trainkit(
        *("export", whole.path, "--all", "--output", "bundle"),
        cwd=place,
        signal=signal.SIGTERM,
        phase="export: a format",
    )
    assert ended.code == 143
    assert ended.output.splitlines()[-1] == "stopped by SIGTERM: nothing was written"
    assert sorted(path.name for path in place.iterdir()) == ["config.yaml", "images", "output.txt", "said.txt"]


@pytest.mark.slow
def test_a_download_is_given_up(server, tmp_path):
    """From a proxy that takes the request and never answers."""
    (tmp_path / "config.yaml").write_text("dataset: {type: mnist, root: data}\nmodel: mlp\n")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        proxy = f"http://127.0.0.1:{silent.getsockname()[1]}"
        environment = {"http_proxy": proxy, "https_proxy": proxy, "no_proxy": ""}
        for signum, code in CODES.items():
            ended = server.trainkit(
                *("train", "config.yaml"),
                cwd=tmp_path,
                signal=signum,
                phase="download",
                environment=environment,
            )
            assert ended.code == code, ended.output
            stopped = f"stopped by {signum.name}: while MNIST was being downloaded; no step was taken"
            assert ended.output.splitlines()[-1] == stopped
            assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "output.txt", "said.txt"]


def test_the_step_is_finished_before_the_stop(server, place):
    ended = server.trainkit(*TRAIN, "runs", cwd=place, signal=signal.SIGTERM, phase="training", at=5)
    run = newest_run(place / "runs")
    assert [record["step"] for record in read_json_lines(run.metrics) if record["type"] == "step"] == [1, 2, 3, 4, 5]
    assert "SIGTERM: finishing the step and saving the state" in ended.output
    assert f"trainkit resume {run.path.relative_to(place)}" in ended.output


def test_a_stopped_run_has_a_report_when_asked_for(server, place):
    """The stop itself is quick; its last line says how to get the report, and those words work as they stand."""
    at = dict(PHASES)["validation"] + 1
    ended = server.trainkit(*TRAIN, "runs", cwd=place, signal=signal.SIGINT, phase="validation", at=at)
    run = newest_run(place / "runs")
    assert not (run.path / "report.html").exists()
    line = next(line for line in ended.output.splitlines() if "for a report so far: " in line)
    words = line.partition("for a report so far: ")[2].split()
    assert words == ["trainkit", "report", str(run.path.relative_to(place))]
    shown = server.trainkit("runs", "show", str(run.path), cwd=place)
    assert f"none yet: trainkit report {run.path}" in shown.output
    made = server.trainkit(*words[1:], cwd=place)
    assert made.code == 0, made.output
    page = (run.path / "report.html").read_text()
    assert "interrupted" in page
    assert "Confusion matrix" in page
    assert "was not scored" not in page
    assert run.status() == "interrupted", "a report changes nothing about the run"
    assert server.trainkit("resume", cwd=place).code == 0
    assert run.status() == "finished"
