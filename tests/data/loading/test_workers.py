"""Batches of files decoded by worker processes: the same as from memory, and errors that name the file."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flat_batches import make_batches
from PIL import Image

from trainkit.data.dataset import Part
from trainkit.data.images.decode import decode_image
from trainkit.data.images.layout import stack_images
from trainkit.data.loading import Batch
from trainkit.data.loading import workers as module
from trainkit.data.loading.workers import WorkerBatches, worker_failure
from trainkit.data.transforms.geometry import RandomCrop, RandomHorizontalFlip, RandomRotation
from trainkit.data.transforms.normalize import Normalize
from trainkit.data.transforms.pipeline import BatchTransform
from trainkit.data.transforms.pixels import ColorJitter
from trainkit.data.transforms.policies import TrivialAugment
from trainkit.data.transforms.static import CenterCrop, Resize, StaticTransform, apply_static_transforms
from trainkit.errors import DataError, TrainkitError

TRANSFORMS: tuple[BatchTransform, ...] = (
    RandomCrop(padding=2),
    RandomHorizontalFlip(),
    RandomRotation((-15.0, 15.0)),
    ColorJitter(0.3, 0.3, 0.3, 0.1),
    TrivialAugment(),
    Normalize((0.4, 0.5, 0.6), (0.2, 0.2, 0.3)),
)
STATIC: tuple[StaticTransform, ...] = (Resize(12), CenterCrop((12, 12)))
CHOSEN = np.arange(0, 24, 2)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Part:
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for index in range(24):
        pixels = rng.integers(0, 256, (14 + index % 3, 18, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:02}.png")
    return Part(tuple(sorted(folder.iterdir())), np.arange(24) % 5)


def worker_batches(part: Part, **changes: Any) -> WorkerBatches:
    knobs: dict[str, Any] = {
        "batch_transforms": TRANSFORMS,
        "static_transforms": STATIC,
        "channels": 3,
        "batch_size": 5,
    }
    knobs |= {"shuffle": True, "seed": 7, "random": True}
    batches = make_batches(part, CHOSEN, **(knobs | changes))
    assert isinstance(batches, WorkerBatches)
    return batches


def same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a, b)
        for one, other in zip(first, second, strict=True)
        for a, b in zip(one[:3], other[:3], strict=True)
    )


def failure_of(batches: WorkerBatches) -> str:
    """The message of the error in the first epoch. Nothing keeps the traceback, which would keep the workers."""
    try:
        list(batches.epoch(0))
    except DataError as error:
        return str(error)
    pytest.fail("no error")


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("by_plane", [False, True])
@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_workers_give_the_batches_of_the_memory_path(
    files: Part, num_workers: int, by_plane: bool, channels_last: bool
) -> None:
    arrays = stack_images([apply_static_transforms(decode_image(path, channels=3), STATIC) for path in files.inputs])
    assert not arrays.flags.c_contiguous
    assert arrays.transpose(0, 2, 3, 1).flags.c_contiguous
    arrays = np.ascontiguousarray(arrays) if by_plane else arrays
    knobs: dict[str, Any] = {"batch_size": 5, "shuffle": True, "seed": 7, "random": True}
    knobs["channels_last"] = channels_last
    knobs |= {"batch_transforms": TRANSFORMS, "static_transforms": STATIC, "channels": 3, "num_workers": num_workers}
    memory = make_batches(Part(arrays, files.targets), CHOSEN, **knobs)
    workers = make_batches(files, CHOSEN, **knobs)
    assert (memory.residency, workers.residency) == ("host", "workers")
    assert workers.num_samples == memory.num_samples == 12
    assert workers.batches_per_epoch == memory.batches_per_epoch == 3
    for epoch in range(2):
        assert same(list(workers.epoch(epoch)), list(memory.epoch(epoch)))
        assert all(tensor.data_ptr() % 64 == 0 for batch in workers.epoch(epoch) for tensor in batch[:2])
        strides = {batch.inputs.stride() for batches in (workers, memory) for batch in batches.epoch(epoch)}
        assert len(strides) == 1
    assert same(list(workers.epoch(1, start=2)), list(memory.epoch(1, start=2)))
    assert list(workers.epoch(1, start=3)) == []


@pytest.mark.gpu
@pytest.mark.parametrize("num_workers", [0, 2])
def test_cuda_gives_the_batches_of_the_cpu(files: Part, num_workers: int) -> None:
    device = torch.device("cuda:0")
    there = worker_batches(files, num_workers=num_workers, device=device)
    for batch, expected in zip(there.epoch(1), worker_batches(files).epoch(1), strict=True):
        assert batch.inputs.device == batch.targets.device == device
        assert torch.equal(batch.targets.cpu(), expected.targets)
        torch.testing.assert_close(batch.inputs.cpu(), expected.inputs, rtol=0, atol=1e-5)


def test_an_epoch_that_was_left_early_leaves_nothing_behind(files: Part) -> None:
    workers = worker_batches(files, num_workers=1)
    expected = list(workers.epoch(1))
    for _ in workers.epoch(0):
        break
    assert same(list(workers.epoch(1)), expected)


def test_without_shared_memory_the_batches_come_through_a_pipe(files: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = list(worker_batches(files, num_workers=1).epoch(0))
    assert next(worker_batches(files, num_workers=1)._load([(torch.arange(5), torch.arange(5))], 0)).rows.is_shared()
    monkeypatch.setattr(module, "_SHARED_MEMORY", Path("/proc"))  # a file system that has no room
    workers = worker_batches(files, num_workers=1)
    assert not next(workers._load([(torch.arange(5), torch.arange(5))], 0)).rows.is_shared()
    assert same(list(workers.epoch(0)), expected)


def test_drop_last_and_file_order(files: Part) -> None:
    batches = list(worker_batches(files, drop_last=True, shuffle=False).epoch(0))
    assert [batch.indices.tolist() for batch in batches] == [[0, 2, 4, 6, 8], [10, 12, 14, 16, 18]]
    assert [batch.targets.tolist() for batch in batches] == [[0, 2, 4, 1, 3], [0, 2, 4, 1, 3]]


def test_the_default_generator_is_not_drawn_from(files: Part) -> None:
    before = torch.get_rng_state()
    list(worker_batches(files).epoch(0))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_damaged_image_is_named(files: Part, tmp_path: Path, num_workers: int) -> None:
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(Path(files.inputs[4]).read_bytes()[:60])
    part = Part((*files.inputs[:4], damaged, *files.inputs[5:]), files.targets)
    message = failure_of(worker_batches(part, num_workers=num_workers))
    assert message.startswith(f"{damaged}: ")
    assert "Traceback" not in message


def test_a_damaged_first_image_is_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "empty.png"
    path.touch()
    with pytest.raises(DataError, match=r"empty.png: empty file \(0 bytes\)"):
        worker_batches(Part((path,) * 24, np.zeros(24, dtype=np.int64)))


def test_images_of_two_sizes_are_explained(files: Part) -> None:
    assert failure_of(worker_batches(files, static_transforms=(), shuffle=False)) == (
        f"{files.inputs[2]}: an image of 16 x 18 pixels, and {files.inputs[0]} has 14 x 18; "
        "add {type: resize, size: 14} and {type: center_crop, size: 14} at the start of transforms, or "
        "make {type: random_resized_crop, size: 14} the first random one"
    )


def test_a_transform_that_does_not_fit_is_found_before_the_first_batch(files: Part) -> None:
    with pytest.raises(ValueError, match=r"the crop \(20, 20\) is larger than the padded image"):
        worker_batches(files, batch_transforms=(RandomCrop(size=(20, 20)),))


def test_a_worker_that_was_killed_is_named(files: Part) -> None:
    batches = worker_batches(files, batch_size=1, num_workers=1)
    with pytest.raises(TrainkitError, match=r"a process that loads images died: .") as caught:  # noqa: PT012
        epoch = batches.epoch(0)
        next(epoch)
        os.kill(batches._loader._iterator._workers[0].pid, signal.SIGKILL)  # type: ignore[union-attr]
        try:
            list(epoch)
        except RuntimeError as error:  # the signal may arrive outside the loader
            raise worker_failure(error) or error from None
    assert "lower training.num_workers" in str(caught.value)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
            "DataLoader worker (pid 7) is killed by",
        ),
        (RuntimeError("Pin memory thread exited unexpectedly"), "Pin memory thread exited unexpectedly. It may have"),
        (ConnectionResetError(104, "Connection reset by peer"), "[Errno 104] Connection reset by peer. It may have"),
        (EOFError(), "it sent no more. It may have run out of memory"),
    ],
)
def test_a_dead_worker_shows_itself_in_several_ways(error: Exception, cause: str) -> None:
    assert str(worker_failure(error)).startswith(f"a process that loads images died: {cause}")


@pytest.mark.parametrize(
    "error",
    [RuntimeError("shape mismatch"), RuntimeError("Caught RuntimeError in DataLoader worker process 0.\nOriginal ...")],
)
def test_other_errors_are_not_taken_for_a_dead_worker(error: Exception) -> None:
    assert worker_failure(error) is None


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="needs SIGHUP")
def test_signals_to_all_processes_of_a_terminal_leave_the_workers_alive(files: Part) -> None:
    """The run ends its step and saves before it ends them."""
    workers = worker_batches(files, num_workers=2)
    list(workers.epoch(0))
    before = [worker.pid for worker in workers._loader._iterator._workers]
    for pid in before:
        for signum in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            os.kill(pid, signum)
    assert same(list(workers.epoch(1)), list(worker_batches(files, num_workers=0).epoch(1)))
    assert [worker.pid for worker in workers._loader._iterator._workers] == before
