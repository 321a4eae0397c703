"""``fine_tuning.cache_features``: the output of a frozen backbone, computed once, and a run on it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainkit._version import __version__
from trainkit.builders.fine_tuning import build_freezing
from trainkit.builders.setup import Setup
from trainkit.config.rules import fine_tuning as rules
from trainkit.data.cache import EntryDraft, streamed_arrays
from trainkit.data.dataset import Part, Split
from trainkit.engine import Freezing
from trainkit.errors import Problem, ProblemsError
from trainkit.models import features_of, head_of
from trainkit.runtime import Choice, Ranks, forward, seed_default_generators
from trainkit.system import Frontend, durable

_TRIED_SAMPLES = 8


def choose_features(setup: Setup, *, steps_per_epoch: int) -> Choice | None:
    """Whether the first epochs run on the output of the backbone; None where nothing is frozen.

    ``auto`` keeps the choice of the checkpoint that the run goes on from.

    Raises:
        ProblemsError: they are to, and cannot.
    """
    if not setup.frozen:
        return None
    asked = setup.config.fine_tuning.cache_features
    if asked is False:
        return Choice("false", "as asked for")
    stored = None if setup.stored is None else setup.stored["choices"].get("cache_features")
    if asked == "auto" and stored is not None:
        return Choice(**stored)
    freezing = build_freezing(setup.config, setup.frozen, steps_per_epoch=steps_per_epoch)
    assert freezing is not None, "something is frozen"
    epochs = frozen_epochs(setup, freezing, steps_per_epoch=steps_per_epoch)
    found = rules.hindrance(setup.config)
    reason = found[0] if found else None
    if reason is None and epochs == 0:
        reason = "something is unfrozen in the first epoch"
    reason = reason or _why_not(setup, freezing)
    if reason is not None:
        if asked is True:
            raise ProblemsError([Problem(f"{reason}; set it to auto", "fine_tuning.cache_features")])
        return Choice("false", f"auto: {reason}")
    why = "as asked for" if asked is True else "auto: the backbone is frozen and nothing random stands before the head"
    return Choice("true", f"{why}; for {epochs} of {setup.config.training.epochs} epochs")


def frozen_epochs(setup: Setup, freezing: Freezing, *, steps_per_epoch: int) -> int:
    """The epochs before the first one in which something is unfrozen."""
    epochs = setup.config.training.epochs
    return min([epochs, *(step // steps_per_epoch for step in freezing.changes)])


def _why_not(setup: Setup, freezing: Freezing) -> str | None:
    """Why the head alone, on the output of the backbone, would not train as the whole model does.

    Tried in fp32: in lower precision the dropout of the head rounds once more or less, which is no other network.
    """
    model, head = setup.model, head_of(setup.model)
    if head is None:
        return "several modules form the head"
    inside = set(head.parameters())
    names = [
        name for name, parameter in model.named_parameters() if parameter not in inside and parameter.requires_grad
    ]
    trained = next((name for name in names if name not in setup.frozen), None)
    if trained is not None:
        return f"{trained} is not frozen"
    batch = next(iter(setup.sample_batches(batch_size=_TRIED_SAMPLES, device=setup.device).epoch(0)))
    try:
        freezing.apply(model, 0)
        whole = _outputs(setup, model, batch.inputs)
        with torch.no_grad():
            features = features_of(model.eval(), batch.inputs, precision="fp32")
        freezing.apply(model, 0)
        alone = _outputs(setup, head, features)
    except (RuntimeError, ValueError) as error:
        return f"the head cannot be run alone: {str(error).strip().splitlines()[0]}"
    finally:
        for name in freezing.until:
            model.get_parameter(name).requires_grad_()
        model.train()
    same = whole.shape == alone.shape and torch.allclose(whole, alone, rtol=1e-4, atol=1e-5, equal_nan=True)
    return None if same else "there is more around the head than the backbone, such as dropout before it"


def _outputs(setup: Setup, part: nn.Module, inputs: Tensor) -> Tensor:
    """In training, with the same noise each time; statistics of batch norm in the head are put back."""
    before = [buffer.clone() for buffer in part.buffers()]
    seed_default_generators(setup.config.seed, "dropout", 0, device=setup.device)
    outputs = forward(part, inputs, precision="fp32").detach()
    with torch.no_grad():
        for buffer, value in zip(part.buffers(), before, strict=True):
            buffer.copy_(value)
    return outputs


def on_features(setup: Setup, *, cache_dir: Path | None, frontend: Frontend) -> Setup:
    """The same run on the output of its backbone: the samples are features, and only the head computes.

    They come from the cache, or are computed and put there; in memory where that cannot be written, and for images that
    are decoded while training, whose contents no key holds.

    Raises:
        Interrupted: the frontend asked for a stop.
    """
    parts = dict(setup.data.parts)
    setup.model.eval()
    for name in sorted({split.part for key, split in setup.data.splits.items() if key != "test"}):
        part = parts[name]
        used = [split.indices for key, split in setup.data.splits.items() if split.part == name and key != "test"]
        features = _features(setup, name, np.unique(np.concatenate(used)), cache_dir, frontend)
        parts[name] = Part(features, part.targets, part.weights)
    # Only the samples of these splits have features.
    splits = {key: split for key, split in setup.data.splits.items() if key != "test"}
    data = replace(setup.data, parts={**parts}, splits=splits, kind="table")
    shape = cast(NDArray[Any], parts[splits["train"].part].inputs).shape[1:]
    return replace(setup, data=data, transforms=[], input_shape=shape, files={}, part_of=_head, reserved=0)


def _head(model: nn.Module) -> nn.Module:
    head = head_of(model)
    assert head is not None, "chosen only where there is one"
    return head


def _features(
    setup: Setup, name: str, used: NDArray[np.int64], cache_dir: Path | None, frontend: Frontend
) -> NDArray[np.float32]:
    """The features of a part: float32 (samples, ...), zeros where a sample is not used."""
    part = setup.data.parts[name]

    def blocks() -> Iterator[NDArray[np.float32]]:
        """Rows from the first to the last of the part."""
        data = replace(setup.data, splits={"train": Split(name, used)})
        one = replace(setup, data=data, ranks=Ranks())  # each process needs all of them
        done = computed = 0
        for batch in one.batches("train").epoch(0):
            frontend.check("the features are not all computed; to go on: trainkit resume")
            with torch.inference_mode():
                rows = features_of(setup.model, batch.inputs, precision=setup.precision).cpu().numpy()
            last = int(batch.indices[-1])
            block = np.zeros((last + 1 - done, *rows.shape[1:]), np.float32)
            block[batch.indices.numpy() - done] = rows
            done, computed = last + 1, computed + len(rows)
            yield block
            if frontend.progress is not None:
                frontend.progress(computed, len(used))
        yield np.zeros((len(part) - done, *rows.shape[1:]), np.float32)

    def write(draft: EntryDraft) -> dict[str, Any]:
        writer = None
        for block in blocks():
            writer = writer or draft.add_array("features", (len(part), *block.shape[1:]), np.float32)
            writer.append(block)
        return {}

    frontend.say(f"features of {len(used):,} samples ({name}): computed once, or from the cache")
    if cache_dir is not None and not part.is_files:
        try:
            label = f"{setup.data.name} {name} features"
            return streamed_arrays(cache_dir, label, _description(setup, name, used), write)[0]["features"]
        except durable.WriteError as error:
            frontend.say(f"note: the features are kept in memory, not cached: {error}")
    return np.concatenate(list(blocks()))


def _description(setup: Setup, name: str, used: NDArray[np.int64]) -> dict[str, Any]:
    """All that the features depend on."""
    head = {id(tensor) for tensor in _head(setup.model).state_dict(keep_vars=True).values()}
    digest = hashlib.sha256()
    for key, tensor in setup.model.state_dict(keep_vars=True).items():
        if id(tensor) not in head:
            digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return {
        "kind": "features",
        "weights": digest.hexdigest(),
        "model": setup.config.model.model_dump(mode="json"),
        "plugins": [plugin.describe() for plugin in setup.config.plugins],  # with a hash of their code
        "data": setup.data.fingerprint,
        "part": name,
        "used": hashlib.sha256(used.tobytes()).hexdigest(),
        "preprocessing": setup.preprocessing,
        "precision": setup.precision,
        "device": setup.device.type,
        "threads": asdict(setup.choices["threads"])["value"],
        "channels_last": setup.channels_last,
        "versions": [__version__, torch.__version__],
    }
