"""Batches made on the device against those made on the CPU, from every place that data can lie in."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from gpu.findings import Findings
from gpu.states import compare_states
from gpu.workplace import AUGMENT, CNN, GEOMETRY, JITTER, Run, Workplace
from trainkit import load_config
from trainkit.builders import build_setup

FAR = 1e-5
"""Rounding stays below this; a pixel that nearest interpolation takes from its neighbor does not."""
FAR_SHARE = 0.005
"""Of the elements that may be far away: nearest interpolation rounds a coordinate to one side or the other."""
AFFINE = {"type": "random_affine", "degrees": 20, "translate": [0.1, 0.2], "scale": [0.8, 1.2], "shear": 10}
GEOMETRIC: dict[str, list[Any]] = {
    "crop": [{"type": "random_crop", "padding": 4}],
    "crop of 24": [{"type": "random_crop", "size": 24}],
    "crop, edge": [{"type": "random_crop", "padding": 3, "padding_mode": "edge"}],
    "crop, reflect": [{"type": "random_crop", "padding": 3, "padding_mode": "reflect"}],
    "flips": ["random_horizontal_flip", "random_vertical_flip"],
    "rotation, nearest": [{"type": "random_rotation", "degrees": 30}],
    "affine, nearest": [AFFINE],
    "affine, bilinear": [{**AFFINE, "interpolation": "bilinear"}],
}
RESIZED: list[Any] = [{"type": "resize", "size": [40, 36]}, {"type": "random_resized_crop", "size": 24}]
"""Images of one size, which the device resizes: a pixel of bytes may be rounded to the next level."""
LEVEL = 0.03
"""A level of bytes after normalize, and less than two of them."""
COLORED: dict[str, list[Any]] = {"jitter": [JITTER], "all": [*GEOMETRY, JITTER]}
ON_LEVELS: dict[str, list[Any]] = {
    "trivial_augment": ["trivial_augment"],
    "rand_augment": [{"type": "rand_augment", "interpolation": "bilinear", "fill": 0.5}],
    "blur, perspective": ["gaussian_blur", "random_perspective"],
}


def data(found: Findings, place: Workplace) -> None:
    """Batches of the device against those of the CPU: each transform, memory layout, and place of the data."""
    some = {name: {**GEOMETRIC, **COLORED}[name] for name in ("crop", "affine, bilinear", "jitter")}
    every = {**GEOMETRIC, **COLORED, **ON_LEVELS}
    jobs = {"gray28": {**GEOMETRIC, **ON_LEVELS}, "rgb32": every, "rgb224": {**some, **ON_LEVELS}}
    for pictures, transforms in list(jobs.items())[: 1 if place.quick else None]:
        for name, steps in {"none": [], **transforms}.items():
            with found.case(f"{pictures}: {name}"):
                keys = {"transforms": [*steps, "normalize", "random_erasing"], "dataset": place.images(pictures)}
                config = place.config("data", **keys, model=CNN, batch_size=16)
                judge(found, f"{pictures}: {name}", batches(config, "cpu"), batches(config, place.device))
    for name, steps, far in (("own sizes", RESIZED[1:], FAR), ("one size", RESIZED, LEVEL)):
        with found.case(f"resized crop of {name}"):
            keys = {"transforms": [*steps, {"type": "normalize", "mean": [0.5] * 3, "std": [0.25] * 3}]}
            config = place.config("data_crops", **keys, dataset=place.images(), model=CNN, batch_size=16)
            judge(found, f"resized crop of {name}", batches(config, "cpu"), batches(config, place.device), far=far)
    config = place.config("data_places", dataset=place.images(), transforms=AUGMENT, model=CNN, batch_size=16)
    for residency in ("device", "host", "map"):
        with found.case(f"residency {residency}"):
            judge(
                found,
                f"residency {residency}",
                batches(config, "cpu"),
                batches(config, place.device, f"training.residency={residency}"),
            )
    with found.case("memory layouts"):
        left, right = (batches(config, place.device, f"training.channels_last={on}") for on in ("false", "true"))
        judge(found, "memory layouts", left, right)
    with found.case("an epoch of MNIST, cropped"):
        crop = [{"type": "random_crop", "padding": 2}, "normalize"]
        config = place.config("data_mnist", dataset=place.mnist(), transforms=crop, batch_size=1000)
        if place.cuda:
            torch.cuda.reset_peak_memory_stats()
        judge(found, "an epoch of MNIST, cropped", batches(config, "cpu"), batches(config, place.device))
        if place.cuda:
            found["peak of that, MB"] = torch.cuda.max_memory_allocated() >> 20


def batches(config: Path, device: str, *sets: str) -> Any:
    return build_setup(load_config(config, overrides=[f"device={device}", *sets]).config).batches(
        "train", training=True
    )


def judge(found: Findings, name: str, left: Any, right: Any, *, far: float = FAR) -> None:
    """Compare an epoch of two batches: the samples must be the same, and the inputs equal but for rounding."""
    elements = other = num_far = 0
    most, same_samples = 0.0, True
    for a, b in zip(left.epoch(1), right.epoch(1), strict=True):
        away = (a.inputs.cpu() - b.inputs.cpu()).abs()
        same_samples &= torch.equal(a.indices, b.indices) and torch.equal(a.targets.cpu(), b.targets.cpu())
        elements, other = elements + away.numel(), other + int((away > 0).sum())
        num_far += int((away > far).sum())
        most = max(most, away.max().item())
    result = f"{other} other, {num_far} far of {elements}, by up to {most:.2g}" + (
        "" if same_samples else "; OTHER SAMPLES"
    )
    found.expect(same_samples and num_far <= FAR_SHARE * elements, name, result)


# No room in the cache and none in memory, so that image files are decoded while training.
NO_ROOM = """
import trainkit.data.images.materialize as materialize
materialize.free_host_bytes = lambda: 0
from trainkit.__main__ import main
main()
"""


def image_workers(found: Findings, place: Workplace) -> None:
    """Images decoded while training, by no process and by 8: the same weights, exit code 0, no hang at the end."""
    scaling = {"type": "normalize", "mean": [0.5] * 3, "std": [0.25] * 3}
    transforms = [scaling if step == "normalize" else step for step in AUGMENT]
    config = place.config("workers", dataset=place.images(), transforms=transforms, model=CNN, batch_size=32, epochs=3)
    states = {}
    for workers in (0, 2 if place.quick else 8):
        name = f"{workers} workers"
        with found.case(name):
            started = time.monotonic()
            words = ["train", config, "--run-dir", name, "--set", f"training.num_workers={workers}"]
            done = place.python("-c", NO_ROOM, *words, limit=45, env={"TRAINKIT_CACHE": "/dev/null/none"})
            found.expect(done.code == 0, name, str(done))
            run = Run(next((place.folder / name).iterdir()))
            spent, whole = run.epochs()[-1], round(time.monotonic() - started, 1)
            found[f"{name}, seconds"] = {
                "all": whole,
                "training": spent["train_seconds"],
                "data": spent["data_seconds"],
            }
            if "decoded while training" not in done.out + done.err:
                found.fault("the images were not decoded while training, so that this check says nothing")
            states[workers] = run.state()
    if len(states) == 2:
        result = compare_states(states[0], states[max(states)])
        found.expect(result == "equal", "weights of both", result)
