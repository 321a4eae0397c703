"""NaN and Inf: what must never reach the weights, and what fp16 does about an overflow."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gpu.findings import Findings
from gpu.states import differences
from gpu.workplace import CNN, MLP, MLP_NORM, SGD, Workplace
from trainkit.errors import TrainkitError

BAD_STEP = 6
OPTIMIZERS: dict[str, Any] = {
    "sgd": {"type": "sgd", "lr": 0.01},
    "sgd, momentum": SGD,
    "adam": {"type": "adam"},
    "adam, amsgrad": {"type": "adam", "amsgrad": True},
    "adamw": {"type": "adamw"},
    "adagrad": {"type": "adagrad"},
    "rmsprop": {"type": "rmsprop"},
}


class Backward:
    """While it is open: calls ``after(self)`` after each backward pass, of which ``count`` says the number.

    It counts from the newest optimizer on, since `trainkit train` tries a backward pass before it trains. The largest
    optimizer is that of the run: others are made to see whether this PyTorch keeps NaN out.
    """

    def __init__(self, after: Callable[[Backward], None] = lambda watch: None) -> None:
        self.after, self.count = after, 0
        self.parameters: list[Tensor] = []
        self.norm: nn.Module | None = None
        """The batch norm that was used last."""

    def spoil_gradient(self, value: float) -> None:
        gradient = self.parameters[0].grad
        assert gradient is not None
        gradient[(0,) * gradient.dim()] = value

    def __enter__(self) -> Backward:
        watch, make, backward = self, torch.optim.Optimizer.__init__, torch.Tensor.backward
        self.originals = make, backward

        def made(optimizer: torch.optim.Optimizer, *args: Any, **knobs: Any) -> None:
            make(optimizer, *args, **knobs)
            parameters = [tensor for group in optimizer.param_groups for tensor in group["params"]]
            if len(parameters) >= len(watch.parameters):
                watch.parameters, watch.count = parameters, 0

        def went_back(tensor: Tensor, *args: Any, **knobs: Any) -> None:
            backward(tensor, *args, **knobs)
            watch.count += 1
            if watch.parameters:
                watch.after(watch)

        def used(module: nn.Module, inputs: Any) -> None:
            if module.training and isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                watch.norm = module

        torch.optim.Optimizer.__init__ = made  # type: ignore[method-assign, assignment]
        torch.Tensor.backward = went_back  # type: ignore[method-assign, assignment]
        self.hook = nn.modules.module.register_module_forward_pre_hook(used)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        torch.optim.Optimizer.__init__, torch.Tensor.backward = self.originals  # type: ignore[method-assign]
        self.hook.remove()


def guard(found: Findings, place: Workplace) -> None:
    """A NaN at step 6: the error names the step, the weights are bitwise those of step 5, nothing is saved after."""

    def spoil(kind: str) -> Callable[[Backward], None]:
        def after(watch: Backward) -> None:
            if watch.count == BAD_STEP and kind == "gradient":
                watch.spoil_gradient(math.nan)
            elif watch.count == BAD_STEP and kind == "buffer" and watch.norm is not None:
                watch.norm.get_buffer("running_var")[0] = math.inf

        return after

    poisoned = poisoned_table(place)
    # Not compiled: a captured step runs no Python that could spoil a gradient. NaN in the data comes there too.
    saving = {"checkpoint": {"every": "1st", "keep_last": 50}, "precision": "fp32", "compile": False}
    for name, optimizer in OPTIMIZERS.items():
        for kind in ("gradient", "buffer", "data"):
            if place.quick and kind != "data" and name != "sgd, momentum":
                continue
            with found.case(f"{name}, {kind}"):
                keys = {**poisoned, "model": MLP} if kind == "data" else {"model": MLP_NORM}
                config = place.config("guard", optimizer=optimizer, **saving, **keys)
                with Backward(spoil(kind)) as watch:
                    expect_stop(found, place, f"{name}, {kind}", config, watch)
    if not place.quick:
        skipped_step(found, place)


def poisoned_table(place: Workplace) -> dict[str, Any]:
    """Sections for a regression whose 55th target has a square of Inf: in batches of 10, the loss of step 6."""
    path = place.folder / "poisoned.csv"
    rows = np.random.default_rng(1).normal(size=(300, 14))
    rows[10 * BAD_STEP - 5, -1] = 1e25
    header = ",".join([*(f"f{number}" for number in range(13)), "target"])
    np.savetxt(path, rows, fmt="%.6g", delimiter=",", header=header, comments="")
    dataset = {"type": "table", "path": str(path), "target": "target", "val_fraction": 0.0, "test_fraction": 0.0}
    return {"dataset": {**dataset, "scale_target": False}, "transforms": [], "shuffle": False}


def expect_stop(found: Findings, place: Workplace, name: str, config: Path, watch: Backward) -> None:
    """Train until the error comes, and look at it, at the weights and at what was saved."""
    try:
        place.train(config)
    except TrainkitError as error:
        message = f"{type(error).__name__}: {error}"
    else:
        found.fault(f"{name}: the run did not stop")
        return
    run = place.newest_run(config)
    saved = max(run.states(), default=(0, 0))[0]
    weights = [tensor for key, tensor in run.state()["model"].items() if "running" not in key and "num_" not in key]
    same = not differences(weights, watch.parameters)
    result = f"{'same weights' if same else 'OTHER WEIGHTS'}, saved to step {saved}: {message[:100]}"
    found.expect(same and saved == BAD_STEP - 1 and f"step {BAD_STEP}:" in message, name, result)


def skipped_step(found: Findings, place: Workplace) -> None:
    """`on_non_finite: skip` leaves out the step and goes on."""

    def after(watch: Backward) -> None:
        if watch.count == BAD_STEP:
            watch.spoil_gradient(math.nan)

    with found.case("skip"), Backward(after):
        progress = place.train(place.config("guard_skip", model=MLP_NORM, on_non_finite="skip", compile=False)).state()[
            "progress"
        ]
        found.expect(progress["steps_skipped"] == 1, "skip", f"steps skipped: {progress['steps_skipped']}")


def fp16(found: Findings, place: Workplace) -> None:
    """An overflow halves the scale and leaves out the step; the checkpoint can be used without a GPU."""
    config = place.config("fp16", dataset=place.images(), model=CNN, batch_size=50, precision="fp16", compile=False)

    def overflow(watch: Backward) -> None:
        if watch.count == 3:
            watch.spoil_gradient(math.inf)

    with found.case("overflow"):
        plain = place.train(config).state()
        with Backward(overflow):
            run = place.train(config)
        spoiled = run.state()
        overflows = [state["progress"]["overflows"] for state in (plain, spoiled)]
        scales = [state["scaler"]["scale"] for state in (plain, spoiled)]
        # The first overflows belong to the search for the scale; they may fall on the step that is spoiled.
        good = overflows[1] >= 1 and scales[1] == 65536.0 / 2 ** overflows[1]
        found.expect(good, "overflow", f"overflows {overflows}, scales {scales}: without and with one made by hand")
        usable_without_gpu(found, place, run.folder)


def usable_without_gpu(found: Findings, place: Workplace, run: Path) -> None:
    """An fp16 run is evaluated, exported and predicted with on the CPU; only training goes on on CUDA."""
    hidden = {"CUDA_VISIBLE_DEVICES": ""}
    picture = place.folder / "rgb32" / "class0" / "0.png"
    commands: dict[str, tuple[tuple[Any, ...], dict[str, str]]] = {
        "eval --device cpu": (("eval", run, "--device", "cpu", "--no-plots", "-q"), {}),
        "eval": (("eval", run, "--no-plots", "-q"), {}),
        "export --torchscript": (("export", run, "--torchscript", "-q", "--output", "fp16_ts"), {}),
        "export without a GPU": (("export", run, "--safetensors", "-q", "--output", "fp16_st"), hidden),
        "predict --device cpu": (("predict", run, picture, "--device", "cpu", "-q"), {}),
    }
    for name, (words, env) in commands.items():
        done = place.command(*words, limit=60, env=env)
        found.expect(done.code == 0, name, str(done))
    refused = place.command("resume", run, "--set", "training.epochs=3", "--set", "device=cpu", "-q", limit=60)
    found.expect(refused.code == 2, "resume on the CPU, to be refused", str(refused))
