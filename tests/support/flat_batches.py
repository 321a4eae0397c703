"""``make_batches`` with the options of its parts side by side."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.data.dataset import Part
from trainkit.data.loading import Decoding, ResidentBatches, Sampler, WorkerBatches
from trainkit.data.loading import make_batches as make

_ORDER = set(inspect.signature(Sampler).parameters)
_DECODING = {field.name for field in fields(Decoding)}


def make_batches(part: Part, indices: NDArray[np.int64], **given: Any) -> ResidentBatches | WorkerBatches:
    """Any options of ``Sampler``, ``Decoding`` and ``make_batches``; the transforms as ``batch_transforms``."""
    order = {name: given.pop(name) for name in _ORDER & given.keys()}
    decoding = {name: given.pop(name) for name in _DECODING & given.keys()}
    transforms = given.pop("batch_transforms")
    given["decoding"] = Decoding(**decoding) if "channels" in decoding else None
    return make(part, Sampler(part, indices, **order), transforms, **given)
