"""The device that a run computes on, its number format, its memory and its random numbers."""
# mypy: implicit-reexport

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
