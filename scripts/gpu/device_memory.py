"""Memory of the device: the estimate against the peak, data beside the model, and what many epochs hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from gpu.batches import batches
from gpu.findings import Findings
from gpu.workplace import Workplace, blobs
from trainkit.errors import TrainkitError

WIDE = {"type": "mlp", "hidden_sizes": [4096, 4096]}
BIG = {
    "type": "cnn",
    "norm": "batch",
    "blocks": [{"channels": 64}, {"channels": 128, "pool": 2}, {"channels": 256, "pool": 2}],
    "global_pool": "avg",
}
MNIST_BYTES = 60_000 * 28 * 28
LEFT = 4 << 30
"""Bytes that are free in ``memory_shortage``."""


def memory_estimate(found: Findings, place: Workplace) -> None:
    """Training with a third more than `trainkit check` estimates; reserved bytes over 40 epochs from host memory.

    The peak itself says little: the kernels of fp32 convolutions take what is free for their workspace (on an H100 the
    peak of the third case was 1.6 times the estimate), and where that is less, PyTorch takes others.
    """
    total = torch.cuda.get_device_properties(0).total_memory
    images: dict[str, Any] = {"dataset": place.mnist(), "epochs": 1}
    cases = {
        "mlp 4096, batch 8192": place.config("peak_mlp", **images, model=WIDE, optimizer="adam", batch_size=8192),
        "cnn bf16, batch 2048": place.config("peak_bf16", **images, model=BIG, batch_size=2048, precision="bf16"),
        "cnn fp32, batch 2048": place.config("peak_fp32", **images, model=BIG, batch_size=2048, precision="fp32"),
    }
    for name, config in cases.items():
        with found.case(name):
            done = place.command("check", config, "--json")
            estimate = json.loads(done.out)["memory_bytes"]["total"]
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.set_per_process_memory_fraction((estimate * 4 / 3 + MNIST_BYTES) / total)
            try:
                place.train(config)
            finally:
                torch.cuda.set_per_process_memory_fraction(1.0)
            peak = torch.cuda.max_memory_allocated() - MNIST_BYTES
            result = f"estimate {estimate >> 20} MB, peak without the data {peak >> 20} MB, {estimate / peak:.2f}"
            found.expect(estimate / peak < 1.5, name, result)
    tables = place.config("host_table", dataset=blobs(500_000, 100), transforms=[])
    for name, config in {"images": place.config("host_images", dataset=place.mnist()), "table": tables}.items():
        with found.case(f"host, {name}"):
            reserved = reserved_over_epochs(config, place)
            steady = reserved[-1] <= reserved[1] * 1.2 + 64
            found.expect(steady, f"host, {name}: reserved MB", reserved)


def reserved_over_epochs(config: Path, place: Workplace) -> list[int]:
    """MB that PyTorch has reserved after some of 40 epochs whose batches come from host memory."""
    torch.cuda.empty_cache()
    some = batches(config, place.device, "training.residency=host", "training.batch_size=1000")
    reserved = []
    for epoch in range(40):
        for _ in some.epoch(epoch):
            pass
        if epoch % 8 in (0, 7):
            torch.cuda.synchronize()
            reserved.append(torch.cuda.memory_reserved() >> 20)
    return reserved


def memory_shortage(found: Findings, place: Workplace) -> None:
    """4 GB are free: the data fit, the model fits, both do not. It trains, or the check refuses; a clear message."""
    table = blobs(400_000, 1000, val_fraction=0.0, test_fraction=0.01)
    deep = {"type": "mlp", "hidden_sizes": [2048] * 3}
    config = place.config(
        "shortage", dataset=table, transforms=[], model=deep, epochs=1, checkpoint={"monitor": "train_loss"}
    )
    torch.zeros(1, device="cuda")
    free = torch.cuda.mem_get_info()[0]
    # It leaves 4 GB to this process; nothing else may use the device meanwhile.
    ballast = torch.empty(max(0, free - LEFT), dtype=torch.uint8, device="cuda")
    found["free MB"] = torch.cuda.mem_get_info()[0] >> 20
    for batch_size in (20_000, 50_000, 62_000):
        name = f"batch_size {batch_size}"
        with found.case(name):
            try:
                run = place.train(config, f"training.batch_size={batch_size}")
                found[name] = f"trained; data: {run.line('data: ')[:80]}"
            except TrainkitError as error:
                failure = " ".join(str(error).split())
                found.expect("out of memory" not in failure, name, failure[:300])
            torch.cuda.empty_cache()
    del ballast
    with found.case("the message"):
        out_of_memory_message(found, place)


def out_of_memory_message(found: Findings, place: Workplace) -> None:
    """A run that needs more memory than there is ends with advice, whether `check` or the first step finds out."""
    table = blobs(3_000_000, 8, val_fraction=0.0, test_fraction=0.0)
    keys = {"transforms": [], "model": WIDE, "checkpoint": {"monitor": "train_loss"}}
    config = place.config("oom", dataset=table, **keys, batch_size=2_900_000, epochs=1)
    free = torch.cuda.mem_get_info()[0]
    ballast = torch.empty(max(0, free - LEFT), dtype=torch.uint8, device="cuda")
    try:
        place.train(config)
    except TrainkitError as error:
        text = " ".join(str(error).split())
        found.expect(
            ("free" in text or "out of memory" in text) and "accumulation_steps" in text, "the message", text[:300]
        )
    else:
        found.fault("a batch of 47 GB was trained on in 4 GB")
    del ballast
