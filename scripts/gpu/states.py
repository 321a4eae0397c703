"""Comparing the states of two runs, bit by bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

PARTS = ("model", "optimizer", "ema", "scaler", "plateau", "progress", "totals", "best", "early_stopping")
"""Of a checkpoint: what two equal runs have equal."""


def compare_states(left: Mapping[str, Any], right: Mapping[str, Any], parts: Sequence[str] = PARTS) -> str:
    """``equal``, or how many values differ and the first three of them. Seconds are left out."""
    found = {key: how for part in parts for key, how in differences(left.get(part), right.get(part), part).items()}
    found = {key: how for key, how in found.items() if "seconds" not in key}
    first = "; ".join(f"{key}: {how}" for key, how in list(found.items())[:3])
    return f"{len(found)} differ: {first}" if found else "equal"


def differences(left: Any, right: Any, path: str = "") -> dict[str, str]:
    """Where two nested values differ, and how."""
    if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
        return tensor_difference(left, right, path)
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        if set(left) != set(right):
            return {path: f"keys {sorted(map(str, set(left) ^ set(right)))[:4]}"}
        pairs = [(f"{path}/{key}", left[key], right[key]) for key in left]
    elif isinstance(left, list | tuple) and isinstance(right, list | tuple) and len(left) == len(right):
        pairs = [(f"{path}/{number}", a, b) for number, (a, b) in enumerate(zip(left, right, strict=True))]
    else:
        both_nan = left != left and right != right
        return {} if left == right or both_nan else {path: f"{left!r:.40} and {right!r:.40}"}
    return {key: how for name, a, b in pairs for key, how in differences(a, b, name).items()}


def tensor_difference(left: torch.Tensor, right: torch.Tensor, path: str) -> dict[str, str]:
    if left.shape != right.shape or left.dtype != right.dtype:
        return {path: f"{tuple(left.shape)} {left.dtype} and {tuple(right.shape)} {right.dtype}"}
    a, b = (tensor.detach().cpu().contiguous().reshape(-1) for tensor in (left, right))
    if torch.equal(a.view(torch.uint8), b.view(torch.uint8)):
        return {}
    away = (a.double() - b.double()).abs().max().item()
    return {path: f"{int((a != b).sum())} of {a.numel()} by up to {away:.3g}"}
