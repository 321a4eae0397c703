"""The configs that come with trainkit, in a source checkout and in an installed wheel; and the starter."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainkit.config.help.introspect import variants
from trainkit.config.schema.base import safe_name
from trainkit.config.schema.optimization import Optimizer
from trainkit.config.text.reader import closest_file
from trainkit.errors import UserError
from trainkit.system import durable
from trainkit.wording import closest

SCHEMA_NAME = "trainkit.schema.json"
SCHEMA_LINE = "# yaml-language-server: $schema="

STARTER = """\
# A starter: scikit-learn's 8 x 8 digits with a small network. Nothing to download.
#
#   trainkit check {path}       everything that can be known before training
#   trainkit train {path}
#   trainkit config list        configs for other data and models

name: {name}                    # of run folders and checkpoints
seed: 0                         # weights, data order, augmentation, dropout and splits follow from it
device: auto                    # cuda where there is one, then mps, then cpu

dataset:                        # digits, iris, wine, breast_cancer, diabetes, mnist, fashion_mnist, kmnist,
  type: digits                  # cifar10, cifar100, image_folder (your pictures), table (your CSV, Parquet), synthetic
  val_fraction: 0.1             # held out to choose the best checkpoint
  test_fraction: 0.2            # held out for `trainkit eval`

transforms:                     # in order; random ones act on training data only
  - {{type: random_crop, padding: 1}}
  - normalize                   # (x - mean) / std, of the training split

model:                          # mlp, cnn, or sequential (torch.nn layers one by one); sizes come from the data
  type: mlp
  hidden_sizes: [64, 64]
  activation: relu              # relu, leaky_relu, gelu, silu, tanh, sigmoid, elu
  dropout: 0.1

loss: cross_entropy             # focal, nll, bce, bce_with_logits; mse, l1, smooth_l1, huber, quantile for values
optimizer:                      # {optimizers}, with PyTorch's own argument names
  type: adamw
  lr: 0.003
scheduler: one_cycle            # constant, step, multi_step, exponential, cosine, coslog, reduce_on_plateau

training:
  epochs: 20
  batch_size: 64
  # early_stopping: {{patience: 5}}
  # clip_grad_norm: 1.0

checkpoint:
  monitor: val_accuracy         # which checkpoint is the best
  keep_last: 2

export: {{torchscript: true}}
"""


@dataclass(frozen=True)
class ShippedConfig:
    """A config by its name (the file's, without ``.yaml``) with its one-line description."""

    name: str
    path: Path
    description: str


def folder() -> Path:
    """Where the shipped configs are: ``trainkit/configs`` of a wheel, ``configs`` of a source checkout."""
    package = Path(__file__).resolve().parents[2]
    candidates = (package / "configs", package.parents[1] / "configs")
    return next((path for path in candidates if path.is_dir()), candidates[0])


def list_shipped() -> list[ShippedConfig]:
    """All shipped configs by name. The description is the first comment below the line for the editor."""
    return [ShippedConfig(path.stem, path, _description(path)) for path in sorted(folder().glob("*.yaml"))]


def find(name: str) -> ShippedConfig | None:
    """The shipped config of that name, with or without ``.yaml``."""
    return next((config for config in list_shipped() if config.name == name.removesuffix(".yaml")), None)


def find_config(given: Path) -> tuple[Path, str | None]:
    """The file of a config: as given, or the shipped one of this name where there is no such file; then a note too."""
    named = find(given.name) if given.name == str(given) and not given.is_file() else None
    if named is None:
        return given, None
    return named.path, f"{given} is the shipped config {_shown(named.path)}: there is no file of this name here"


def list_sweeps() -> list[ShippedConfig]:
    """All shipped sweeps by name."""
    return [ShippedConfig(path.stem, path, _description(path)) for path in sorted((folder() / "sweeps").glob("*.yaml"))]


def find_sweep(given: Path) -> tuple[Path, str | None]:
    """As ``find_config``, for the file of a sweep."""
    named = next((one for one in list_sweeps() if one.name == given.name.removesuffix(".yaml")), None)
    if given.name != str(given) or given.is_file() or named is None:
        return given, None
    return named.path, f"{given} is the shipped sweep {_shown(named.path)}: there is no file of this name here"


def _description(path: Path) -> str:
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith(SCHEMA_LINE) and line.strip("# "):
            return line.strip("# ")
    return ""


def hint_for_missing(path: Path) -> str:
    """What to do about a config file that does not exist."""
    exact = find(path.name)
    if exact is not None:
        return f"{exact.name} is a shipped config: give its name alone, {exact.name}"
    near = closest_file(path)
    if near is not None:
        return f"did you mean {near}?"
    similar = closest(path.stem, (config.name for config in list_shipped()))
    if similar is not None:
        return f"did you mean the shipped {similar}?"
    return "`trainkit config list` shows the shipped ones, `trainkit init` writes one to start from"


def _shown(path: Path) -> str:
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def schema_line(path: Path) -> str:
    """The comment by which an editor finds the schema that came with this trainkit, for a config at this path."""
    here = path.parent.resolve() == folder()
    return SCHEMA_LINE + (SCHEMA_NAME if here else (folder() / SCHEMA_NAME).as_posix())


def is_copied(data: object, source: str | None, *, given: Sequence[object]) -> bool:
    """Whether ``init`` copies a config instead of looking at data; ``given`` are the options that are about data.

    Raises:
        UserError: these cannot be used then.
    """
    if data is not None and source is None:
        return False
    if any(one is not None for one in (data, *given)):
        raise UserError("--from copies a config as it is: it goes with -o alone" if source else "DATA is missing")
    return True


def write_starter(path: Path | None, *, source: str | None = None) -> Path:
    """Write the starter, or a copy of the shipped config named ``source``, and return its path.

    Raises:
        UserError: no such shipped config, the file is there already, or its folder is not.
    """
    original = None
    if source is not None:
        original = find(source)
        if original is None:
            names = [config.name for config in list_shipped()]
            near = closest(source, names)
            hint = f"did you mean {near}?" if near else f"there are {', '.join(names)}"
            raise UserError(f"--from: no shipped config has this name, got {source!r}; {hint}")
    path = path or Path()
    if path.is_dir():
        path = path / f"{original.name if original else 'config'}.yaml"
    if path.exists() or path.is_symlink():
        raise UserError(f"{path}: there is a file of this name, which is left as it is; give another name")
    if not path.parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}; make it first")
    if original is None:
        text = f"{SCHEMA_LINE}{SCHEMA_NAME}\n" + STARTER.format(
            name=safe_name(path.stem), path=path, optimizers=", ".join(variants(Optimizer))
        )
    else:
        text = original.path.read_text(encoding="utf-8").replace(f"configs/{original.path.name}", str(path))
    text = text.replace(f"{SCHEMA_LINE}{SCHEMA_NAME}", schema_line(path))
    durable.write_text(path, text, overwrite=False)
    return path
