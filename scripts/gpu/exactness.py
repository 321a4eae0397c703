"""The same run twice, and gone on with from its files: bitwise equal, eager and compiled."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, get_args

import torch

from gpu.findings import Findings
from gpu.non_finite import Backward, expect_stop, poisoned_table
from gpu.states import compare_states
from gpu.workplace import ADAMW, AUGMENT, CNN, MLP, MLP_NORM, POOLS, RESIDUAL, Run, Workplace, blobs
from trainkit.config.schema.run import Training

SAVE_ALL = ("checkpoint.every=1st", "checkpoint.keep_last=1000")


def exact_tables(found: Findings, place: Workplace) -> None:
    """The same run twice, and resumed from files, bitwise: tables."""
    exact(found, place, "13 features, batch 10", place.config("exact_mlp"))
    if place.cuda:  # where auto takes TF32
        exact(found, place, "13 features, batch 10, fp32", place.config("exact_mlp32", precision="fp32"))
    averaged = {"model": MLP_NORM, "optimizer": ADAMW, "ema": {"decay": 0.9}, "clip_grad_norm": 1.0}
    exact(found, place, "dropout, batch norm, EMA", place.config("exact_norm", **averaged))
    lbfgs = {"type": "lbfgs", "lr": 0.3, "max_iter": 3}
    exact(found, place, "lbfgs", place.config("exact_lbfgs", batch_size=50, optimizer=lbfgs))
    if place.quick:
        return
    for pieces in (2, 3):
        config = place.config(f"exact_pieces{pieces}", model=MLP_NORM, accumulation_steps=pieces, batch_size=12)
        exact(found, place, f"accumulation_steps {pieces}, dropout", config)
    exact(found, place, "30 features, batch 5", place.config("exact_30", dataset=blobs(120, 30), batch_size=5))
    wide = {"model": {"type": "mlp", "hidden_sizes": [500, 300]}, "optimizer": "adam", "batch_size": 130}
    exact(found, place, "77 features, batch 130", place.config("exact_wide", dataset=blobs(2000, 77), **wide))


def exact_images(found: Findings, place: Workplace) -> None:
    """The same run twice, and resumed from files, bitwise: CNNs in bf16, fp16 and fp32."""
    augmented = {
        "dataset": place.images(),
        "transforms": AUGMENT,
        "model": CNN,
        "batch_size": 50,
        "ema": {"decay": 0.9},
    }
    exact(found, place, "bf16, all transforms", place.config("exact_bf16", **augmented, precision="bf16"))
    if place.cuda:
        exact(found, place, "fp16, all transforms", place.config("exact_fp16", **augmented, precision="fp16"))
    if not place.quick:
        plain = {"dataset": place.images(), "model": CNN, "batch_size": 50, "optimizer": "adam"}
        exact(found, place, "fp32", place.config("exact_fp32", **plain, precision="fp32"))


def exact_pools(found: Findings, place: Workplace) -> None:
    """The same, for layers whose CUDA kernels may add in any order, and for residual blocks."""
    plain: dict[str, Any] = {"dataset": place.images(), "batch_size": 50, "precision": "fp32"}
    config = place.config("exact_pools", **plain, model=POOLS)
    exact(found, place, "adaptive average pool, overlapping max pool", config)
    if place.quick:
        return
    exact(
        found, place, "the same in bf16", place.config("exact_pools16", **{**plain, "precision": "bf16"}, model=POOLS)
    )
    exact(found, place, "residual", place.config("exact_residual", **plain, model=RESIDUAL))
    pieces = place.config("exact_residual3", **plain, model=RESIDUAL, accumulation_steps=3)
    exact(found, place, "residual, accumulation_steps 3", pieces)


def exact(found: Findings, place: Workplace, name: str, config: Path) -> None:
    """Train a config twice, once with every step saved, and go on from the files of several steps."""
    with found.case(name):
        whole = place.train(config)
        target = whole.state()
        saved = place.train(config, *SAVE_ALL)
        results = {"twice": compare_states(target, saved.state())}
        states = saved.states()
        per_epoch = max(steps for steps, epochs in states if epochs == 0)
        wanted = sorted({1, per_epoch // 2, per_epoch - 1, per_epoch, per_epoch + 2} & {steps for steps, _ in states})
        for step in wanted[1:3] if place.quick else wanted:
            file = states[min(key for key in states if key[0] == step)]
            results[f"from step {step} of {per_epoch}"] = compare_states(
                target, place.train(config, resume=file).state()
            )
        found.expect(set(results.values()) == {"equal"}, name, results)


def compiled(found: Findings, place: Workplace, mode: str) -> None:
    """Train in a compile mode: the losses are near the eager ones, and a resume is bitwise equal.

    Every case has a ragged last batch and an EMA.
    """
    allowed = {value for part in get_args(Training.model_fields["compile"].annotation) for value in get_args(part)}
    if mode not in allowed:
        found.skip(f"training.compile has no {mode!r}")
        return
    still: dict[str, Any] = {"model": {**MLP_NORM, "dropout": 0.0}}
    images: dict[str, Any] = {"dataset": place.images(), "model": {**CNN, "dropout": 0.0}, "batch_size": 50}
    cases: dict[str, tuple[float, dict[str, Any]]] = {
        "mlp": (0.01, still),
        "accumulation_steps 2": (0.01, {**still, "accumulation_steps": 2, "batch_size": 12}),
        # The compiler draws other random numbers, so that only the size of the loss is the same.
        "dropout": (0.3, {"model": MLP_NORM}),
        "cnn": (0.02, {**images, "precision": "fp32"}),
        "cnn bf16": (0.05, {**images, "precision": "bf16"}),
    }
    # Tuning the convolutions takes minutes.
    chosen = 1 if place.quick else 3 if mode == "max-autotune" else len(cases)
    with found.case("NaN in the data"):
        config = place.config(
            f"compile_nan_{mode}", model=MLP, **poisoned_table(place), checkpoint={"every": "1st"}, compile=mode
        )
        with Backward() as watch:
            expect_stop(found, place, "NaN in the data", config, watch)
    for name, (tolerance, keys) in list(cases.items())[:chosen]:
        with found.case(name):
            config = place.config(f"compile_{mode}_{name.replace(' ', '_')}", ema={"decay": 0.9}, **keys)
            exact = mode == "auto"  # a captured step has the bits of the plain one
            resumes = not name.startswith("cnn")
            compare_with_eager(found, place, name, config, mode, tolerance=0.0 if exact else tolerance, resumes=resumes)


def compare_with_eager(
    found: Findings, place: Workplace, name: str, config: Path, mode: str, *, tolerance: float, resumes: bool
) -> None:
    started = time.monotonic()
    eager = [row["train_loss"] for row in place.train(config, "training.compile=false").epochs()]

    def train(*sets: str, resume: Path | None = None) -> Run:
        torch.compiler.reset()  # as in a new process: nothing that was compiled for another run
        return place.train(config, f"training.compile={mode}", *sets, resume=resume)

    done = train()
    losses = [row["train_loss"] for row in done.epochs()]
    away = max(abs(a - b) / abs(a) for a, b in zip(eager, losses, strict=True))
    notes = [line[:200] for line in done.said if "compile" in line and not line.startswith("run: ")]
    result = {"loss differs by": f"{away:.1e}", "seconds": round(time.monotonic() - started, 1), "said": notes}
    failed = any("failed" in line or "warning" in line for line in notes)
    found.expect(away <= tolerance and not failed, name, result)
    if resumes:
        saved = train(*SAVE_ALL)
        states = saved.states()
        results = {"twice": compare_states(done.state(), saved.state())}
        # Before and after the first ragged batch, which makes the compiler compile again.
        for step in {8, max(steps for steps, _ in states) - 15}:
            file = states[min(key for key in states if key[0] == step)]
            results[f"from step {step}"] = compare_states(done.state(), train(resume=file).state())
        found.expect(set(results.values()) == {"equal"}, f"{name}, resumed", results)
