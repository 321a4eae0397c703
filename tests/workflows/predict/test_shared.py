"""Predictions that processes share: those of one process, in the order of the inputs, with the same errors."""

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from trainkit.cli import predict as command
from trainkit.data.tables import Filled
from trainkit.errors import Interrupted, TrainkitError, UserError
from trainkit.runtime import Ranks
from trainkit.workflows.predict import open_model, predict
from trainkit.workflows.predict.samples import Chunk, Job
from trainkit.workflows.predict.shared import Computed, Shared, packed, unpacked


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """101 images, among them a broken one and one of another size, a text, and an array."""
    folder = tmp_path_factory.mktemp("inputs")
    images = np.random.default_rng(0).integers(256, size=(231, 1, 8, 8), dtype=np.uint8)
    for index in range(101):
        Image.fromarray(images[index][0]).save(folder / f"{index:04d}.png")
    (folder / "0013.png").write_bytes(b"not an image")
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(folder / "0051.png")
    (folder / "notes.txt").write_text("no image")
    np.save(folder / "0077.npy", images[200:231])
    return folder


def with_batches_of(model, size):
    training = model.config.training.model_copy(update={"eval_batch_size": size, "num_threads": 1})
    return replace(model, config=model.config.model_copy(update={"training": training}))


class ThreadRanks(Ranks):
    """Threads of this process in the place of processes."""

    def __init__(self, rank, size, table, barrier):
        super().__init__(rank, size)
        self.table, self.barrier = table, barrier

    def gather_bytes(self, data):
        self.table[self.rank] = data
        self.barrier.wait(30)
        found = list(self.table)
        self.barrier.wait(30)
        return found


def in_threads(size, work):
    table, barrier = [b""] * size, threading.Barrier(size)
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(lambda rank: work(ThreadRanks(rank, size, table, barrier)), range(size)))


@pytest.mark.parametrize(("size", "batch_size"), [(2, 16), (3, 5), (4, 64)])
def test_the_predictions_of_one_process(tiny_run, digits, size, batch_size):
    model = with_batches_of(open_model(tiny_run.best_checkpoint), batch_size)
    inputs = [str(digits), str(digits / "0077.npy"), "nothing*.png", str(digits / "0001.png")]
    alone = list(predict(model, inputs))
    first, *others = in_threads(size, lambda ranks: list(predict(model, inputs, ranks=ranks)))
    assert first == alone
    assert len(alone) == 101 + 31 + 2
    assert sum(one.error is not None for one in alone) == 3
    assert others == [[]] * (size - 1)


@pytest.mark.parametrize("missing_on", [0, 1])
def test_inputs_that_change_meanwhile_are_no_silent_mistake(tiny_run, digits, missing_on):
    model = with_batches_of(open_model(tiny_run.best_checkpoint), 16)

    def work(ranks):
        inputs = sorted(str(path) for path in digits.glob("*.png"))[ranks.rank == missing_on :]
        try:
            return str(list(predict(model, inputs, ranks=ranks)))
        except TrainkitError as error:
            ranks.barrier.abort()  # the others would see that this one is gone
            return str(error)
        except threading.BrokenBarrierError:
            return "rank 0 is gone"

    assert "the processes have found other inputs, at" in in_threads(2, work)[0]


def test_a_signal_to_one_stops_all(tiny_run, digits):
    model = with_batches_of(open_model(tiny_run.best_checkpoint), 16)

    def work(ranks):
        ranks.stopping = signal.SIGTERM  # as it is known after the exchange
        with pytest.raises(Interrupted, match="stopped by SIGTERM: 0 samples were done"):
            list(predict(model, [str(digits)], ranks=ranks))

    in_threads(2, work)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(sizes=st.lists(st.integers(1, 9), max_size=30), batch_size=st.integers(1, 12), num_ranks=st.integers(2, 5))
def test_each_batch_belongs_to_one_rank(sizes, batch_size, num_ranks):
    jobs = [Job([f"{number}.{row}" for row in range(size)], lambda: None) for number, size in enumerate(sizes)]
    shared = [Shared(Ranks(rank, num_ranks), batch_size) for rank in range(num_ranks)]
    picked = [list(one.pick(iter(jobs))) for one in shared]
    assert sorted(job.names for part in picked for job in part) == sorted(job.names for job in jobs)
    names = [name for batch in shared[0].expected for name in batch]
    assert names == [name for job in jobs for name in job.names]
    assert all(len(batch) >= batch_size for batch in list(shared[0].expected)[:-1])


def test_a_batch_survives_the_way_to_the_first_rank():
    filled = Filled()
    filled.missing["x"] += 2
    filled.unseen["c"] = type(filled.missing)({"猫": 1})
    chunk = Chunk(["a\udcff.png", "b.png"], [], {1: "broken\nhere"}, ["exif"], filled)
    outputs = torch.tensor([[0.1, float("nan")]], dtype=torch.float64)
    found = unpacked(packed(Computed([chunk, Chunk(["c"], [], {0: ""})], outputs)))
    assert found.chunks == [chunk, Chunk(["c"], [], {0: ""})]
    assert found.outputs.dtype == torch.float64
    assert found.outputs.numpy().tobytes() == outputs.numpy().tobytes()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX pipes")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"given": ["RUN", "nothing.png"]}, "nothing.png: no such file or folder"),
        ({"given": ["nothing.pth", "IMAGE"]}, "nothing.pth"),
        ({"device": "cuda:7"}, "there is no device 'cuda:7'"),
        ({"tta": "sideways"}, "tta: expected none, flip or flip_shift"),
        ({"given": ["RUN", "PIPE"]}, "pipe can be read once, by one process; write it to a file, or predict alone"),
        ({"nproc": "-1"}, "--nproc takes a number of processes"),
    ],
)
def test_what_is_wrong_is_said_before_a_process_starts(tiny_run, digits, monkeypatch, tmp_path, arguments, message):
    monkeypatch.setattr("trainkit.workflows.launch.launch", lambda *a, **k: pytest.fail("started"))
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    places = {"RUN": str(tiny_run.best_checkpoint), "IMAGE": str(digits / "0001.png"), "PIPE": "pipe"}
    words = arguments.pop("given", ["RUN", "IMAGE"])
    options = {"device": "auto", "tta": "none", "nproc": "4", "top_k": 3, "resize": False, **arguments}
    with pytest.raises(UserError, match=message):
        command.predict(given=[places.get(word, word) for word in words], **options)
