"""First weights of convolutional networks that training images decide: a whitening first convolution."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn import init

from trainkit.models.layer_shapes import fail

_PATCHES_PER_IMAGE = 1024
"""About as many: larger images are looked at in steps of several pixels."""
_IMAGES_AT_A_TIME = 64


def begin_as_identity(model: nn.Module) -> None:
    """Let all convolutions but the first pass on the channels that they have room for, with other weights as they are.

    Raises:
        ProblemsError: the first layer is no convolution that can whiten.
    """
    first = _first_convolution(model)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and layer is not first and layer.groups == 1:
            init.dirac_(layer.weight[: layer.in_channels])


@torch.no_grad()
def whiten(model: nn.Module, images: Tensor, *, eps: float) -> None:
    """Let the first convolution make uncorrelated channels of deviation 1 out of the patches of these images.

    Half of its filters are the directions of largest variance (eigenvectors of the patches' second moments), divided
    by the deviation there; the other half are their negatives, for activations that keep one sign (Jordan, 2024).

    Args:
        images: (N, C, H, W) as the model gets them.
        eps: added to the variance.
    """
    layer = _first_convolution(model)
    step = max(1, math.isqrt(images.shape[2] * images.shape[3] // _PATCHES_PER_IMAGE))
    moments = torch.zeros((), dtype=torch.float64)
    count = 0
    for some in images.cpu().contiguous().split(_IMAGES_AT_A_TIME):
        patches = (
            F.unfold(some, layer.kernel_size, dilation=layer.dilation, stride=step)
            .transpose(1, 2)
            .flatten(0, 1)
            .double()
        )
        moments = moments + patches.T @ patches
        count += len(patches)
    variances, directions = torch.linalg.eigh(moments / count)  # of rising variance
    half = directions.T.flip(0)[: layer.out_channels // 2]
    # The sign of an eigenvector is free: that of its largest element is taken to be positive.
    half = half * half.gather(1, half.abs().argmax(1, keepdim=True)).sign()
    half = half / (variances.flip(0)[: len(half), None] + eps).sqrt()
    layer.weight.copy_(torch.cat((half, -half)).view_as(layer.weight))
    if layer.bias is not None:
        layer.bias.zero_()


def _first_convolution(model: nn.Module) -> nn.Conv2d:
    """The first layer of the model, which has to be a convolution with as many filters as there are directions."""
    layer = next(layer for layer in model.modules() if next(layer.children(), None) is None)
    if not isinstance(layer, nn.Conv2d):
        fail(f"whiten is for a first layer that is a convolution, got {type(layer).__name__}", "model.init")
    most = 2 * layer.weight[0].numel()
    if layer.groups > 1 or layer.out_channels % 2 or layer.out_channels > most:
        channels = " x ".join(map(str, layer.weight.shape[1:]))
        got = f"{layer.groups} groups" if layer.groups > 1 else f"{layer.out_channels} channels"
        fail(
            f"whiten needs an even number of channels of at most {most} in the first convolution (two for each of the "
            f"{channels} numbers of a patch), and no groups, got {got}",
            "model.init",
        )
    return layer
