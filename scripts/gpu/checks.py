"""All checks, in order of value, with the time that each may take on one GPU. Naming them needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

from gpu.findings import Findings
from gpu.workplace import Workplace


@dataclass(frozen=True)
class Check:
    """One check: it runs in a process of its own, and is ended after ``seconds``."""

    name: str
    seconds: float
    summary: str
    least: float = 15
    """With less time left, it is not begun."""
    cuda_only: bool = False
    alone: bool = False
    """Nothing else may run beside it."""


COMPILED = "losses near the eager ones, the same run twice and resumed, bitwise"
CHECKS = (
    Check("environment", 60, "versions, the card, every module of trainkit imported"),
    Check("checkpoint", 240, "a run saved, verified, loaded; check, eval, predict, resume, export, bench"),
    Check("gpu_tests", 180, "the tests that are marked gpu"),
    Check("guard", 120, "NaN and Inf, by optimizer: the weights stay those of the step before"),
    Check("exact_tables", 120, "the same run twice and resumed from files, bitwise: tables"),
    Check("exact_images", 120, "the same: CNNs in bf16, fp16 and fp32, all transforms, EMA"),
    Check("exact_pools", 120, "the same: pools whose kernels may add in any order, residual blocks"),
    Check("compile_auto", 200, f"training.compile: auto: {COMPILED}", least=40),
    Check("compile_reduce_overhead", 200, f"training.compile: reduce-overhead: {COMPILED}", least=40),
    Check("compile_default", 200, f"training.compile: default: {COMPILED}", least=40),
    Check("compile_max_autotune", 200, f"training.compile: max-autotune: {COMPILED}", least=40),
    Check("data", 120, "batches of the device against those of the CPU: transforms, layouts, places of the data"),
    Check("fp16", 110, "an overflow; the checkpoint used without a GPU", cuda_only=True),
    Check("syncs", 100, "calls that wait for the device in 100 steps, by line", cuda_only=True),
    Check("nondeterminism", 90, "operations that PyTorch lists as having no fixed order"),
    Check("numbers", 90, "loss and gradient against the CPU's: fp32, TF32, bf16; what auto takes"),
    Check("crossings", 110, "CPU to CUDA and back, another memory layout at a resume, reading without a GPU"),
    Check("memory_estimate", 110, "the estimate against the peak; 40 epochs from host memory", cuda_only=True),
    Check("image_workers", 100, "images decoded while training, by 0 and 8 processes: same weights, exit code 0"),
    Check("stop_signal", 130, "SIGTERM in an epoch: exit code 143, resumed bitwise"),
    Check("selftest", 240, "trainkit selftest resume: killed runs end as one that was left alone", least=40),
    Check("memory_shortage", 90, "4 GB free: the data or the model fit, not both", cuda_only=True, alone=True),
)


def run_check(name: str, found: Findings, place: Workplace) -> None:
    """Run the check of this name, here."""
    from gpu import batches, device_memory, exactness, non_finite, numerics, processes

    if name.startswith("compile_"):
        exactness.compiled(found, place, mode=name.removeprefix("compile_").replace("_", "-"))
        return
    functions = {
        "environment": processes.environment,
        "checkpoint": processes.checkpoint,
        "gpu_tests": processes.gpu_tests,
        "guard": non_finite.guard,
        "exact_tables": exactness.exact_tables,
        "exact_images": exactness.exact_images,
        "exact_pools": exactness.exact_pools,
        "data": batches.data,
        "fp16": non_finite.fp16,
        "syncs": numerics.syncs,
        "nondeterminism": numerics.nondeterminism,
        "numbers": numerics.numbers,
        "crossings": processes.crossings,
        "memory_estimate": device_memory.memory_estimate,
        "image_workers": batches.image_workers,
        "stop_signal": processes.stop_signal,
        "selftest": processes.selftest,
        "memory_shortage": device_memory.memory_shortage,
    }
    functions[name](found, place)
