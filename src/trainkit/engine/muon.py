"""Muon for the hidden matrices of a network and AdamW for all else, as one optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn, optim


class MuonAndAdamW(optim.Optimizer):
    """``torch.optim.Muon`` (Jordan et al., 2024) for groups with ``is_matrix``, ``torch.optim.AdamW`` for the others.

    Both are PyTorch's own and work on the groups and the state of this optimizer, which is saved as any other one.

    Args:
        params: groups as PyTorch takes them; parameters alone go to AdamW.
        fused: of AdamW.
        muon: the other knobs of Muon: momentum, nesterov, ns_steps, adjust_lr_fn.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        betas: tuple[float, float] = (0.9, 0.999),
        fused: bool = False,
        **muon: Any,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "is_matrix": False})
        self.parts: list[optim.Optimizer] = []
        matrices, others = (self._groups(is_matrix=is_matrix) for is_matrix in (True, False))
        # A group gets the knobs of the optimizer that it goes to. Copies: each of these wants the group to be its own.
        if matrices:
            self.parts.append(optim.Muon([dict(group) for group in matrices], **muon))
        if others:
            form = {"fused": True} if fused else {}
            self.parts.append(optim.AdamW([dict(group) for group in others], betas=betas, **form))
        for part in self.parts:
            for group, with_knobs in zip(self._groups_of(part), part.param_groups, strict=True):
                group.update(with_knobs)

    def _groups(self, *, is_matrix: bool) -> list[dict[str, Any]]:
        return [group for group in self.param_groups if group["is_matrix"] is is_matrix]

    def _groups_of(self, part: optim.Optimizer) -> list[dict[str, Any]]:
        return self._groups(is_matrix=isinstance(part, optim.Muon))

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of both."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.param_groups, part.state = self._groups_of(part), self.state  # other ones after a checkpoint is loaded
            part.step()
        return loss


def hidden_matrices(model: nn.Module) -> set[str]:
    """The names of the parameters that Muon is for: matrices but those of the first and the last layer, and embeddings.

    As its authors advise. The weights of convolutions have four dimensions, which PyTorch's Muon does not take.
    """
    embeddings = {layer.weight for layer in model.modules() if isinstance(layer, nn.Embedding | nn.EmbeddingBag)}
    weights = [(name, parameter) for name, parameter in model.named_parameters() if parameter.dim() > 1]
    return {name for name, parameter in weights[1:-1] if parameter.dim() == 2 and parameter not in embeddings}
