"""Cheap members of an ensemble in one network: TabM (Gorishniy, Kotelnikov and Babenko, 2024).

The members share the weights of the linear layers; each has factors of its own on their inputs and outputs, its own
biases and its own output layer. Features become (N, k, F) for k members.
"""

# Without postponed annotations: TorchScript reads those of the modules, and cannot read text.
import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainkit.models.table_layers import NtkLinear

Outputs = Literal["logits", "logit", "values"]
"""Scores of all classes, the score of the second of two classes, or values to predict."""


class Members(nn.Module):
    """The features once for each member, times factors that make the members differ from the first step on."""

    def __init__(self, members: int, sources: Sequence[int]) -> None:
        """``sources``: the column that each feature comes from; the features of a column begin with the same factor."""
        super().__init__()
        self.members = members
        of_columns = torch.randn(members, max(sources) + 1)
        self.weight = nn.Parameter(of_columns[:, torch.tensor(sources, device=of_columns.device)])

    def forward(self, features: Tensor) -> Tensor:
        """(N, F) to (N, k, F)."""
        return features.unsqueeze(1) * self.weight


class MemberLinear(NtkLinear):
    """``NtkLinear`` with a bias for each member, and factors on its inputs and outputs that begin at 1."""

    def __init__(self, members: int, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self.bias = nn.Parameter(torch.zeros(members, out_features))
        self.before = nn.Parameter(torch.ones(members, in_features))
        self.after = nn.Parameter(torch.ones(members, out_features))

    def forward(self, features: Tensor) -> Tensor:
        """(N, k, in_features) to (N, k, out_features)."""
        return F.linear(features * self.before, self.scaled_weight()) * self.after + self.bias


class MemberOutputs(NtkLinear):
    """``NtkLinear`` with weights and a bias for each member."""

    def __init__(self, members: int, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self.weight = nn.Parameter(torch.randn(members, out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(members, out_features))

    def forward(self, features: Tensor) -> Tensor:
        """(N, k, in_features) to (N, k, out_features)."""
        made = torch.bmm(features.transpose(0, 1), self.scaled_weight().transpose(1, 2))
        return made.transpose(0, 1) + self.bias


class MeanOfMembers(nn.Module):
    """In evaluation, the outputs that stand for the mean of the members; in training, those of each member."""

    def __init__(self, outputs: Outputs) -> None:
        super().__init__()
        self.outputs: str = outputs

    def forward(self, outputs: Tensor) -> Tensor:
        """(N, k, K) to (N, K), or as it is in training, where the loss is the mean of the members' losses."""
        return outputs if self.training else mean_of_members(outputs, self.outputs)


def mean_of_members(outputs: Tensor, kind: str) -> Tensor:
    """The mean over the members of what their outputs stand for, as such an output: (N, k, K) to (N, K).

    Args:
        kind: one of ``Outputs``. Means of probabilities come as logarithms, or as their log odds.
    """
    if kind == "logits":
        return torch.logsumexp(torch.log_softmax(outputs, dim=2), dim=1) - math.log(outputs.shape[1])
    if kind == "logit":
        return torch.logsumexp(F.logsigmoid(outputs), dim=1) - torch.logsumexp(F.logsigmoid(-outputs), dim=1)
    return outputs.mean(dim=1)


class MeanOfViews(nn.Module):
    """A model of images (N, C, H, W) whose answer is the mean over an image and its mirror image, left to right.

    Args:
        kind: as for ``mean_of_members``: what the mean is of.
        shifted: and over both of them after the image was moved by a pixel down and right, and up and left; the pixels
            at its edges are repeated there.
    """

    def __init__(self, model: nn.Module, *, kind: str, shifted: bool = False) -> None:
        super().__init__()
        self.model, self.kind, self.shifted = model, kind, shifted

    def forward(self, inputs: Tensor) -> Tensor:
        images = [inputs]
        if self.shifted:
            padded = F.pad(inputs, (1, 1, 1, 1), mode="replicate")
            images += [padded[..., :-2, :-2], padded[..., 2:, 2:]]
        outputs = [self.model(view) for image in images for view in (image, image.flip(-1))]
        return mean_of_members(torch.stack(outputs, dim=1), self.kind)
