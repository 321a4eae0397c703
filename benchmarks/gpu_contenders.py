"""One contender of the GPU benchmark, in its own process: prints the seconds of each epoch as JSON.

    python benchmarks/gpu_contenders.py CONTENDER WORKLOAD CONFIG EPOCHS [--busy]

All of them train the network, the precision and the memory layout that trainkit makes of the config, with a fused SGD,
so that it is the loops that are compared. With ``--busy``, the share of the time in which the GPU works is measured
instead, over some steps of the first epoch, by torch.profiler, which slows the host down a little.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from trainkit import load_config
from trainkit.builders import Setup, build_setup
from trainkit.data.images import materialize
from trainkit.system import Frontend, StopRequest
from trainkit.workflows.train import train

Batches = Iterator[tuple[Tensor, Tensor]]
WATCHED = (30, 60)
"""The steps between which the GPU is watched."""


class Watch:
    """Ticks once a step; between two ticks it records the kernels of the GPU."""

    def __init__(self, on: bool) -> None:
        self.on, self.ticks = on and torch.cuda.is_available(), 0
        self.share: float | None = None
        self.kernels: float | None = None

    def tick(self) -> None:
        if not self.on:
            return
        self.ticks += 1
        if self.ticks == WATCHED[0]:
            torch.cuda.synchronize()
            self.profile = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])
            self.profile.start()
            self.started = time.perf_counter()
        elif self.ticks == WATCHED[1]:
            torch.cuda.synchronize()
            seconds = time.perf_counter() - self.started
            self.profile.stop()
            self.add_up(seconds)

    def add_up(self, seconds: float) -> None:
        """Seconds in which at least one kernel or copy ran, as a share; and kernels a step."""
        events = [event for event in self.profile.events() or () if "CUDA" in str(event.device_type).upper()]
        busy, end = 0.0, -1.0
        for start, stop in sorted((event.time_range.start, event.time_range.end) for event in events):
            busy += max(0.0, stop - max(start, end))
            end = max(end, stop)
        self.share = busy / 1e6 / seconds
        self.kernels = len(events) / (WATCHED[1] - WATCHED[0])


class Clock(StopRequest):
    """The training loop asks after each step whether to stop; before the run has its folder, the checks ask too."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch, self.said = watch, list[str]()

    def say(self, text: str) -> None:
        self.said.append(text)

    def __call__(self) -> bool:
        if self.watch.on and any(text.startswith("run: ") for text in self.said):
            self.watch.tick()
        return False


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def trainkit(workload: str, config: Path, epochs: int, watch: Watch) -> list[float]:
    """The workflow of the command, with its log and its checkpoints; the seconds of training alone, by its log."""
    if workload.endswith("workers"):  # no room in the cache and in memory: files are decoded while training
        os.environ["TRAINKIT_CACHE"] = "/dev/null/none"
        materialize.free_host_bytes = lambda: 0  # type: ignore[attr-defined]
    clock = Clock(watch)
    frontend = Frontend(say=clock.say, stop=clock)
    with tempfile.TemporaryDirectory() as folder:
        loaded = load_config(config, overrides=[f"training.epochs={epochs}"])
        result = train(loaded, runs_dir=Path(folder), frontend=frontend)
        records = [json.loads(line) for line in result.run.metrics.read_text().splitlines()]
    print(
        *(line for line in clock.said if line.startswith(("precision", "data", "compile"))), sep="\n", file=sys.stderr
    )
    seconds = [record["train_seconds"] for record in records if record["type"] == "epoch"]
    return [after - before for before, after in itertools.pairwise([0.0, *seconds])]


def by_hand(workload: str, config: Path, epochs: int, watch: Watch, *, graph: bool = False) -> list[float]:
    """The plain loop: data where they are fastest, one synchronization an epoch; the whole step as a CUDA graph."""
    setup = build_setup(load_config(config).config)
    batch_size, batches = setup.config.training.batch_size, loader(workload, setup)
    model, prepare = setup.model.train(), preparation(setup)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, fused=True)
    total = torch.zeros((), device=setup.device)

    def step(raw: Tensor, targets: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss = cross_entropy(setup.forward(prepare(raw)), targets)
        loss.backward()
        optimizer.step()
        total.add_(loss.detach())

    replay = captured(step, *next(batches())) if graph else step
    seconds = []
    for _ in range(epochs):
        synchronize()
        started = time.perf_counter()
        for raw, targets in batches():
            (replay if len(targets) == batch_size else step)(raw, targets)
            watch.tick()
        synchronize()
        total.item()
        seconds.append(time.perf_counter() - started)
    return seconds


def preparation(setup: Setup) -> Callable[[Tensor], Tensor]:
    """How bytes (N, C, H, W) become inputs: flipped at random where the config says so, scaled, in the memory layout.

    The statistics are copied to the device once: a copy from the host cannot be a part of a CUDA graph.
    """
    steps = setup.config.transforms
    flips = any(step.type == "random_horizontal_flip" for step in steps)
    (scaling,) = (step for step in steps if step.type == "normalize")
    mean, std = (torch.tensor(values, device=setup.device).view(-1, 1, 1) for values in (scaling.mean, scaling.std))

    def prepare(raw: Tensor) -> Tensor:
        if raw.dtype == torch.uint8:
            if flips:
                chosen = torch.rand(len(raw), 1, 1, 1, device=raw.device) < 0.5
                raw = torch.where(chosen, raw.flip(-1), raw)
            raw = raw.float().div_(255).sub_(mean).div_(std)
        if setup.channels_last and raw.shape[1] == 1:  # one channel: PyTorch takes either layout for the other
            return raw.contiguous().as_strided(raw.shape, (raw[0].numel(), 1, raw.shape[-1], 1))
        return raw.to(memory_format=torch.channels_last) if setup.channels_last else raw

    return prepare


def captured(step: Callable[[Tensor, Tensor], None], raw: Tensor, targets: Tensor) -> Callable[[Tensor, Tensor], None]:
    """The step as a CUDA graph, which reads from two tensors that every batch is copied into."""
    inputs, labels = raw.clone(), targets.clone()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(5):
            step(inputs, labels)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(inputs, labels)

    def replay(raw: Tensor, targets: Tensor) -> None:
        inputs.copy_(raw)
        labels.copy_(targets)
        graph.replay()

    return replay


def loader(workload: str, setup: Setup) -> Callable[[], Batches]:
    """Batches on the device for one epoch, shuffled: from its own memory, from that of the host, or from files."""
    if workload.endswith("workers"):
        files = image_files(setup)
        return lambda: (
            (x.to(setup.device, non_blocking=True), y.to(setup.device, non_blocking=True)) for x, y in files
        )
    split, size = setup.data.splits["train"], setup.config.training.batch_size
    part = setup.data.parts[split.part]
    x, y = torch.from_numpy(part.inputs[split.indices]), torch.from_numpy(part.targets[split.indices])
    y = y.to(setup.device)
    if workload.endswith("map"):
        return lambda: from_host(x, y, size, setup.device)
    x = x.to(setup.device)
    if not any(step.type.startswith("random") for step in setup.config.transforms):
        x = preparation(setup)(x)  # once, before the first epoch
    return lambda: ((x[rows], y[rows]) for rows in torch.randperm(len(x), device=setup.device).split(size))


def from_host(x: Tensor, y: Tensor, size: int, device: torch.device) -> Batches:
    for rows in torch.randperm(len(x)).split(size):
        raw = x[rows].pin_memory() if device.type == "cuda" else x[rows]
        yield raw.to(device, non_blocking=True), y[rows.to(device, non_blocking=True)]


def image_files(setup: Setup) -> Any:
    """PyTorch's way with files: bytes from ImageFolder by a DataLoader's workers, in pinned memory."""
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import PILToTensor

    dataset = ImageFolder(setup.config.dataset.root, PILToTensor())
    workers = setup.config.training.num_workers
    options: dict[str, Any] = {"num_workers": workers, "persistent_workers": workers > 0}
    size, pinned = setup.config.training.batch_size, setup.device.type == "cuda"
    return DataLoader(dataset, batch_size=size, shuffle=True, pin_memory=pinned, **options)


def lightning(workload: str, config: Path, epochs: int, watch: Watch) -> list[float]:
    """Lightning's Trainer without logger, progress bar and checkpoints, on a DataLoader as in its tutorials."""
    import lightning as L
    from torch.utils.data import DataLoader, TensorDataset

    setup = build_setup(load_config(config).config)
    if workload.startswith("pictures"):
        loaded = image_files(setup)
    else:
        split = setup.data.splits["train"]
        part = setup.data.parts[split.part]
        x, y = torch.from_numpy(part.inputs[split.indices]), torch.from_numpy(part.targets[split.indices])
        workers: dict[str, Any] = {"num_workers": 2, "persistent_workers": True}
        size, pinned = setup.config.training.batch_size, setup.device.type == "cuda"
        loaded = DataLoader(TensorDataset(x, y), batch_size=size, shuffle=True, pin_memory=pinned, **workers)
    prepare, seconds = preparation(setup), list[float]()

    class Module(L.LightningModule):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def training_step(self, batch: Any, index: int) -> Tensor:
            watch.tick()
            return cross_entropy(self.model(prepare(batch[0])).float(), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.02, momentum=0.9, fused=True)

        def on_train_epoch_start(self) -> None:
            synchronize()
            seconds.append(time.perf_counter())

    precision: Any = {"bf16": "bf16-mixed", "fp16": "16-mixed"}.get(setup.precision, "32-true")  # TF32 is set already
    accelerator = "gpu" if setup.device.type == "cuda" else "cpu"
    quiet: dict[str, Any] = dict.fromkeys(("enable_progress_bar", "logger", "enable_checkpointing"), False)
    trainer = L.Trainer(max_epochs=epochs, accelerator=accelerator, devices=1, precision=precision, **quiet)
    trainer.fit(Module(setup.model), loaded)
    synchronize()
    seconds.append(time.perf_counter())
    return [after - before for before, after in itertools.pairwise(seconds)]


def by_graph(workload: str, config: Path, epochs: int, watch: Watch) -> list[float]:
    return by_hand(workload, config, epochs, watch, graph=True)


CONTENDERS: dict[str, Callable[[str, Path, int, Watch], list[float]]] = {
    "trainkit": trainkit,
    "hand-written": by_hand,
    "hand-written, CUDA graph": by_graph,
    "lightning": lightning,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("contender", choices=list(CONTENDERS))
    parser.add_argument("workload")
    parser.add_argument("config", type=Path)
    parser.add_argument("epochs", type=int)
    parser.add_argument("--busy", action="store_true")
    options = parser.parse_args()
    watch = Watch(options.busy)
    taken = CONTENDERS[options.contender](options.workload, options.config, options.epochs, watch)
    print(json.dumps({"seconds": taken, "busy": watch.share, "kernels": watch.kernels}))
