"""``trainkit data preview``: training images without and with the random transforms."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainkit.builders import (
    build_batch_transforms,
    check_rules,
    decoding_of,
    load_data,
    mixing_of,
)
from trainkit.config import LoadedConfig
from trainkit.data.loading import Batch, Sampler, make_batches
from trainkit.data.transforms import Normalize
from trainkit.engine import Batches, MixedBatches
from trainkit.errors import UserError
from trainkit.reports import plot_preview
from trainkit.system import Frontend
from trainkit.workflows.check.problems import located


def preview(
    loaded: LoadedConfig,
    output: Path,
    *,
    num_images: int = 16,
    epochs: int = 2,
    frontend: Frontend | None = None,
) -> Path:
    """Draw the first images of training into a PNG file, with the random transforms of each epoch.

    Raises:
        DataError: the data are missing or broken.
        UserError: the data are a table.
    """
    config = loaded.config
    with located(loaded):
        data, _ = load_data(config, frontend=frontend)
        if data.kind != "image":
            raise UserError(f"{loaded.path}: {data.name} is a table; there are no images to preview")
        check_rules(config, data, where=loaded.where, materialized=True)
        transforms = build_batch_transforms(config, data)
        chosen = data.splits["train"]
        part = data.parts[chosen.part]
        make = partial(make_batches, part, transforms=transforms, decoding=decoding_of(config, data))
        order = partial(Sampler, part, seed=config.seed)
        sampler, mix = config.training.sampler, config.training.mix
        balance = None if sampler is None else sampler.power
        shuffled = order(chosen.indices, batch_size=num_images, shuffle=True, balance=balance)
        batch = next(iter(make(shuffled, random=False).epoch(0)))
        # Random transforms depend on a sample's index only: these images change as in training.
        again = order(batch.indices.numpy(), batch_size=len(batch.indices), shuffle=False)
        same: Batches = make(again, random=True)
        if mix is not None:
            same = MixedBatches(same, mixing_of(mix), seed=config.seed, num_steps=epochs)
        changed = [next(iter(same.epoch(epoch))) for epoch in range(epochs)]
    normalize = next((one for one in transforms if isinstance(one, Normalize)), None)
    names = [data.class_names[int(target)] if data.class_names else "" for target in batch.targets]
    random: list[str] = [spec.type for spec in config.transforms if spec.stage == "random"]
    if mix is not None:
        random.append(f"{mix.type} of these images")
    how = ", ".join(random) if random else "no random transforms: training images stay as they are"
    return plot_preview(
        output,
        _visible(batch.inputs, normalize),
        [_visible(one.inputs, normalize) for one in changed],
        names,
        mixed=[[] if one.other_targets is None else shares_of(one, data.class_names) for one in changed],
        title=f"{data.name}: {how}",
    )


def shares_of(batch: Batch, class_names: Sequence[str]) -> list[str]:
    """Both classes of each mixed sample with their shares, the larger first; one where it is not mixed."""
    assert batch.weights is not None
    assert batch.other_targets is not None
    rows = zip(batch.targets.tolist(), batch.other_targets.tolist(), batch.weights.tolist(), strict=True)
    return [
        class_names[one] if one == other or share == 1 else f"{class_names[one]} {share:.0%} + {class_names[other]}"
        for one, other, share in rows
    ]


def _visible(inputs: Tensor, normalize: Normalize | None) -> Any:
    """Model inputs (N, C, H, W) back in [0, 1]."""
    images = inputs.float().cpu()
    if normalize is not None:
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (normalize.mean, normalize.std))
        images = images * std + mean
    return images.clamp(0, 1).numpy()
