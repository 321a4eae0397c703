"""Weights files as torchvision publishes them, and pictures, made from a seed."""

import hashlib
import io
from pathlib import Path

import numpy as np
import torch
from torchvision import models

SIX = ("resnet18", "mobilenet_v3_small", "efficientnet_b0", "convnext_tiny", "vit_b_16", "swin_t")
"""Those that the tests look at closely: the usual families."""


def published_network(name: str) -> torch.nn.Module:
    """As after training: no layer starts with zeros, and batch norms have statistics of their own."""
    torch.manual_seed(0)
    model = models.get_model(name, weights=None).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    last = [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]
    torch.nn.init.normal_(last.weight, std=0.1)
    return model


def weights_file(model: torch.nn.Module, name: str, folder: Path) -> Path:
    """The state_dict in a file whose name ends in the beginning of its SHA-256, as torchvision's do."""
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    data = buffer.getvalue()
    path = folder / f"{name}-{hashlib.sha256(data).hexdigest()[:8]}.pth"
    path.write_bytes(data)
    return path


def color_pictures(count: int, height: int, width: int) -> np.ndarray:
    """Smooth pictures: uint8 (N, 3, H, W)."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.uniform(0, 255, (count, 3, 8, 8)).astype(np.float32))
    fine = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 255)
    return fine.round().to(torch.uint8).numpy()
