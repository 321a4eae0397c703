"""The device that a run computes on, and its random numbers."""

from trainkit.runtime.device import (
    Choice,
    autocast,
    claim,
    free_device_bytes,
    free_host_bytes,
    resolve_device,
    resolve_precision,
    set_num_threads,
)
from trainkit.runtime.seeding import derive_seed, permutation, seed_default_generators, uniforms

__all__ = [
    "Choice",
    "autocast",
    "claim",
    "derive_seed",
    "free_device_bytes",
    "free_host_bytes",
    "permutation",
    "resolve_device",
    "resolve_precision",
    "seed_default_generators",
    "set_num_threads",
    "uniforms",
]
