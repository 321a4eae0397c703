"""The device that a run computes on, its number format, its memory and its random numbers."""

from trainkit.runtime.device import Choice, claim, noting_nondeterminism, processor_name, resolve_device
from trainkit.runtime.distributed import Ranks, join, leave, piece_bounds
from trainkit.runtime.internals import (
    any_non_finite,
    copy_,
    halt_updates,
    leaves_out_updates,
    lerp_,
    spare_the_compiler,
    take_step,
)
from trainkit.runtime.memory import free_device_bytes, free_host_bytes, host_bytes, memory_that_ran_out
from trainkit.runtime.precision import PRECISIONS, forward, resolve_precision, use_tf32
from trainkit.runtime.seeding import derive_seed, generator, permutation, seed_default_generators, uniforms
from trainkit.runtime.settings import own_settings
from trainkit.runtime.threads import in_threads
from trainkit.runtime.transfers import Transfer, added_up

__all__ = [
    "PRECISIONS",
    "Choice",
    "Ranks",
    "Transfer",
    "added_up",
    "any_non_finite",
    "claim",
    "copy_",
    "derive_seed",
    "forward",
    "free_device_bytes",
    "free_host_bytes",
    "generator",
    "halt_updates",
    "host_bytes",
    "in_threads",
    "join",
    "leave",
    "leaves_out_updates",
    "lerp_",
    "memory_that_ran_out",
    "noting_nondeterminism",
    "own_settings",
    "permutation",
    "piece_bounds",
    "processor_name",
    "resolve_device",
    "resolve_precision",
    "seed_default_generators",
    "spare_the_compiler",
    "take_step",
    "uniforms",
    "use_tf32",
]
