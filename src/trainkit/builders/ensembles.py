"""The networks of several runs as one: its preprocessing is what they have in common, and each scales by its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from trainkit.builders.model import build_model
from trainkit.config.schema import Config
from trainkit.data.tables import model_layout, stored_layout
from trainkit.data.target_scale import TargetScale, stored_scale
from trainkit.data.transforms import columns
from trainkit.engine import EXPECTS, LossName, outputs_of
from trainkit.errors import UserError
from trainkit.models import Ensemble, EnsembleMember, NormalizeChannels, Rescale
from trainkit.wording import listed

_OWN = ("normalize", "fill", *columns.SCALING, "target_scale", "input_shape")
"""What the preprocessing of each member may have for itself: it is done inside of the ensemble."""

Preprocessing = Mapping[str, Any]


def shared_preprocessing(members: Sequence[Preprocessing]) -> dict[str, Any]:
    """What is done to a sample before the members scale it, as the preprocessing of a checkpoint.

    Raises:
        UserError: they do not read their samples alike.
    """
    commons = [_common(one) for one in members]
    first = commons[0]
    differing = [key for key in first if any(one.get(key) != first[key] for one in commons)]
    if differing:
        hint = "; dataset.value_range: [low, high] gives gray values of more than 8 bits one range for all runs"
        what = f"the runs do not read their samples alike ({listed(differing, quoted=False)})"
        raise UserError(what + (hint if "pixels" in differing else ""))
    scales = [stored_scale(one) for one in members]
    of_values = {"target_scale": _common_scale(scales)} if "target_scale" in members[0] else {}
    if first["kind"] == "image":
        return {**first, "normalize": None, "input_shape": list(members[0]["input_shape"])}
    layout = stored_layout(first["table_encoding"])
    width = len(first["feature_names"]) if layout is None else layout.width
    return {**first, "standardize": None, "input_shape": [width], **of_values}


def _common(preprocessing: Preprocessing) -> dict[str, Any]:
    common = {key: value for key, value in preprocessing.items() if key not in _OWN}
    encoding = common.get("table_encoding")
    if encoding is not None and "inputs" in encoding:  # gaps are those of a training split
        inputs = [{key: value for key, value in each.items() if key != "missing"} for each in encoding["inputs"]]
        common["table_encoding"] = {**encoding, "inputs": inputs}
    return common


def _common_scale(scales: Sequence[TargetScale | None]) -> list[list[float]] | None:
    """Mean and deviation in the middle of those of the members; None where none of them scales."""
    scaled = [scale for scale in scales if scale is not None]
    if not scaled:
        return None
    middle: list[list[float]] = np.mean(np.array(scaled, dtype=np.float64), axis=0).tolist()
    return middle


def build_ensemble(
    config: Config,
    shared: Preprocessing,
    members: Sequence[Preprocessing],
    *,
    output_size: int,
    loss: LossName,
    device: torch.device,
) -> Ensemble:
    """The ensemble with the first weights of its networks, on the CPU.

    Args:
        shared: what ``shared_preprocessing`` gives.
        device: where it will compute.
    """
    built = []
    for own in members:
        layout = model_layout(own.get("table_encoding"))
        shape = tuple(own["input_shape"])
        network = build_model(config, input_shape=shape, output_size=output_size, layout=layout, loss=loss)
        built.append(EnsembleMember(_scaling(own, device), network, _rescale(stored_scale(own), stored_scale(shared))))
    return Ensemble(built, kind=mean_kind(loss))


def mean_kind(loss: LossName) -> str:
    """What the mean of several answers of models with this loss is of, as ``mean_of_members`` takes it."""
    return "values" if EXPECTS[loss] == "probabilities" else outputs_of(loss)


def networks_of(ensemble: Ensemble) -> nn.ModuleList:
    """The networks alone: their weights are what the checkpoint of an ensemble holds."""
    members = (member for member in ensemble.members if isinstance(member, EnsembleMember))
    return nn.ModuleList([member.network for member in members])


def _scaling(own: Preprocessing, device: torch.device) -> nn.Module:
    if own["kind"] == "table":
        modules = [columns.column_module(one, device=device).cpu() for one in columns.from_json(own)]
        return nn.Sequential(*modules) if modules else nn.Identity()
    statistics = own["normalize"]
    return NormalizeChannels(statistics["mean"], statistics["std"]) if statistics else nn.Identity()


def _rescale(own: TargetScale | None, shared: TargetScale | None) -> nn.Module:
    """From the units in which a network sees the targets to those of the ensemble; worked out in float64."""
    if shared is None:
        return nn.Identity()
    pairs = zip(own or [(0.0, 1.0)] * len(shared), shared, strict=True)
    found = [(std / to_std, (mean - to_mean) / to_std) for (mean, std), (to_mean, to_std) in pairs]
    return Rescale([factor for factor, _ in found], [shift for _, shift in found])
