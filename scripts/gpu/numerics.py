"""What the device computes: synchronizations, operations without a fixed order, and numbers against the CPU's."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from gpu.findings import Findings
from gpu.workplace import AUGMENT, CNN, GEOMETRY, MLP, MLP_NORM, POOLED, POOLS, RESIDUAL, Workplace, blobs
from trainkit import load_config
from trainkit.builders import build_setup

FREE_OF_SYNCS = ("mlp, sgd", "mlp, adamw, EMA, clipping", "cnn, bf16")
"""What is said to run ahead of the device between the sums of every 64 steps."""


def syncs(found: Findings, place: Workplace) -> None:
    """Calls that wait for the device in 100 steps, by the line that makes them."""
    quiet: dict[str, Any] = {"epochs": 1, "logging": {"every": 1000}}
    table: dict[str, Any] = {"dataset": blobs(5000), "batch_size": 20, **quiet}
    images: dict[str, Any] = {"dataset": place.mnist(), "model": CNN, "batch_size": 256, **quiet}
    averaged: dict[str, Any] = {"optimizer": {"type": "adamw"}, "ema": {"decay": 0.9}, "clip_grad_norm": 1.0}
    weights = {"type": "cross_entropy", "weight": "balanced"}
    cases = {
        "mlp, sgd": place.config("sync_mlp", **table),
        "mlp, adamw, EMA, clipping": place.config("sync_adamw", **table, model=MLP_NORM, **averaged),
        "cnn, bf16": place.config("sync_cnn", **images),
        "cnn, bf16, crop, flip, affine": place.config("sync_random", **images, transforms=[*GEOMETRY, "normalize"]),
        "class weights": place.config("sync_weights", **table, loss=weights),
        "mlp, rmsprop": place.config("sync_rmsprop", **table, optimizer={"type": "rmsprop"}),
        "cnn, fp16": place.config("sync_fp16", **images, precision="fp16"),
    }

    def watch(step: int) -> None:
        if step in (20, 120):
            torch.cuda.set_sync_debug_mode("warn" if step == 20 else "default")

    for name, config in cases.items():
        with found.case(name), warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            try:
                place.train(config, each_step=watch)
            finally:
                torch.cuda.set_sync_debug_mode("default")
            waits = [one for one in seen if "called a synchronizing" in str(one.message)]
            places = dict(Counter(f"{Path(one.filename).name}:{one.lineno}" for one in waits))
            found.expect(name not in FREE_OF_SYNCS or len(waits) <= 20, name, places or "none")


def nondeterminism(found: Findings, place: Workplace) -> None:
    """Operations that PyTorch lists as having no fixed order, by kind of model."""
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    images: dict[str, Any] = {"dataset": place.images(), "batch_size": 50}
    averaged = {"type": "cnn", "norm": "batch", "blocks": [{**POOLED[0], "pool_type": "avg"}]}
    smooth = {"type": "cross_entropy", "weight": "balanced", "label_smoothing": 0.1}
    line = {"type": "synthetic", "problem": "linear_regression"}
    kinds = {
        "mlp, EMA": place.config("order_mlp", model=MLP_NORM, optimizer="adamw", ema={"decay": 0.9}),
        "cnn, all transforms": place.config("order_cnn", **images, model=CNN, transforms=AUGMENT),
        "adaptive and overlapping pools": place.config("order_pools", **images, model=POOLS),
        "residual, fp32": place.config("order_residual", **images, model=RESIDUAL, precision="fp32"),
        "global max": place.config("order_max", **images, model={**RESIDUAL, "global_pool": "max"}),
        "average pool": place.config("order_average", **images, model=averaged),
        "lbfgs": place.config("order_lbfgs", batch_size=100, optimizer={"type": "lbfgs", "max_iter": 2}),
        "regression": place.config("order_regression", dataset=line, batch_size=50),
        "class weights, smoothing": place.config("order_loss", loss=smooth),
        "nll": place.config("order_nll", model={**MLP, "output": "log_softmax"}, loss="nll"),
    }
    for name, config in list(kinds.items())[: 3 if place.quick else None]:
        with found.case(name), warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            torch.use_deterministic_algorithms(True, warn_only=True)
            try:
                place.train(config)
            finally:
                torch.use_deterministic_algorithms(False)
            texts = {str(one.message).split(" does not have")[0][:80] for one in seen}
            found[name] = sorted(text for text in texts if "determinis" in text or "_cuda" in text) or "none"


def numbers(found: Findings, place: Workplace) -> None:
    """Loss and gradient of one step against those of the CPU in fp32: in fp32, TF32 and bf16; what `auto` takes."""
    cases = {
        "mlp": place.config(
            "number_mlp", dataset=place.mnist(), model={**MLP, "hidden_sizes": [512, 256]}, batch_size=256
        ),
        "cnn": place.config("number_cnn", dataset=place.images(), model={**CNN, "dropout": 0.0}, batch_size=50),
        "residual": place.config("number_residual", dataset=place.images(), model=RESIDUAL, batch_size=50),
    }
    for name, config in cases.items():
        with found.case(name):
            loss, gradient = one_step(config, "cpu", "fp32")
            result, far = {}, False
            for precision in ("fp32", "tf32", "bf16"):
                other, others = one_step(config, place.device, precision)
                away = ((others - gradient).norm() / gradient.norm()).item()
                result[precision] = f"loss {abs(other - loss) / loss:.1e}, gradient {away:.1e}"
                far |= away > (1e-3 if precision == "fp32" else 0.1)
            found.expect(not far, name, result)
    chosen: dict[str, dict[str, Any]] = {
        "mlp": {},
        "cnn": {"dataset": place.images(), "model": CNN},
        "cnn, lbfgs": {"dataset": place.images(), "model": CNN, "optimizer": "lbfgs"},
        "regression": {"dataset": {"type": "synthetic", "problem": "linear_regression"}},
    }
    for name, keys in chosen.items():
        with found.case(f"auto, {name}"):
            choice = build_setup(load_config(place.config("auto", **keys)).config).choices["precision"]
            found[f"auto, {name}"] = f"{choice.value} ({choice.reason})"


def one_step(config: Path, device: str, precision: str) -> tuple[float, torch.Tensor]:
    """Loss and gradient (all parameters, flat, on the CPU) of the first batch, computed as training does."""
    sets = [f"device={device}", f"training.precision={precision}"]
    setup = build_setup(load_config(config, overrides=sets).config)
    batch = next(iter(setup.batches("train", training=True).epoch(0)))
    setup.model.train()
    loss = setup.loss.mean(setup.forward(batch.inputs), batch.targets)
    loss.backward()
    gradients = [
        tensor.grad.float().cpu().reshape(-1) for tensor in setup.model.parameters() if tensor.grad is not None
    ]
    return loss.item(), torch.cat(gradients)
