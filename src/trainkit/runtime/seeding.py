"""Counter-based randomness: every draw is a function of (seed, purpose, counters), never of what was drawn before.

So the position in a run is just ``(epoch, step)``, and a resumed run draws what the uninterrupted one would have.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray


def derive_seed(seed: int, purpose: str, *counters: int) -> int:
    """A 63-bit seed for one purpose (``"order"``, ``"dropout"``, ...) at one position of the run."""
    key = f"{seed}/{purpose}/{'/'.join(map(str, counters))}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little") >> 1


def generator(seed: int, purpose: str, *counters: int) -> torch.Generator:
    """A fresh CPU generator for one purpose at one position of the run."""
    return torch.Generator().manual_seed(derive_seed(seed, purpose, *counters))


def seed_default_generators(seed: int, purpose: str, *counters: int, device: torch.device) -> None:
    """Seed the generators that layers such as dropout draw from: those of the CPU and of the device.

    On the generator objects themselves: ``torch.manual_seed`` takes 100 us a call, a generator's own method 4.
    """
    value = derive_seed(seed, purpose, *counters)
    torch.default_generator.manual_seed(value)
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(value)
    elif device.type == "mps":
        torch.mps.manual_seed(value)


def permutation(seed: int, epoch: int, length: int) -> torch.Tensor:
    """The order of the training samples in one epoch: int64 (length,)."""
    return torch.randperm(length, generator=generator(seed, "order", epoch))


def uniforms(seed: int, purpose: str, epoch: int, indices: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """``count`` independent draws from [0, 1) for each sample: (N, count).

    Each depends on the sample's own index only, so neither batches nor order nor workers change it. SplitMix64
    (Steele, Lea and Flood, 2014) of a 64-bit key and a counter; the top 53 bits make the number.
    """
    key = np.uint64(derive_seed(seed, purpose, epoch))
    golden = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        rows = _mix(key + (indices.astype(np.uint64) + np.uint64(1)) * golden)
        cells = _mix(rows[:, None] + (np.arange(count, dtype=np.uint64) + np.uint64(1)) * golden)
    return (cells >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = z ^ (z >> np.uint64(31))
    return mixed
