"""What the opened data say, as plain numbers, and the rules about configs run on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from trainkit.builders.data import build_static_transforms
from trainkit.config.rules import check
from trainkit.config.schema import Config
from trainkit.config.schema.data import DatasetInfo
from trainkit.config.text import parse_path
from trainkit.data.dataset import Dataset
from trainkit.data.images import image_shape
from trainkit.errors import Problem, ProblemsError, UserError


def dataset_info(config: Config, data: Dataset, *, materialized: bool = False) -> DatasetInfo:
    """What the config says of its data, completed and corrected by the data themselves.

    Args:
        materialized: the static transforms are done in ``data``.
    """
    info = replace(
        config.dataset.known_info(),
        kind=data.kind,
        task=data.task,
        num_classes=data.num_classes or None,
        num_targets=data.num_targets or None,
        num_train=len(data.splits["train"]),
        num_val=len(data.splits["val"]) if "val" in data.splits else 0,
        num_test=len(data.splits["test"]) if "test" in data.splits else 0,
    )
    if data.kind == "table":
        return replace(info, num_features=len(data.feature_names))
    with suppress(UserError):  # no image can be read, or none is left of them: the shape stays unknown
        done = materialized and not data.parts[data.splits["train"].part].is_files
        shape = image_shape(data, [] if done else build_static_transforms(config))
        return replace(info, image_shape=(data.channels, None, None), static_shape=shape)
    return info


def check_rules(
    config: Config,
    data: Dataset,
    *,
    where: Callable[[str], str] | None = None,
    materialized: bool = False,
    sections: Sequence[str] = (),
) -> None:
    """The rules about configs, on what the opened data say.

    Args:
        where: as for ``trainkit.config.rules.check``.
        materialized: the static transforms are done in ``data``.
        sections: only what is broken in these sections of the config; all of them when left out.

    Raises:
        ProblemsError: every rule that the config breaks.
    """
    found = check(config, where, dataset_info(config, data, materialized=materialized))
    broken = [Problem(rule.message, rule.key) for rule in found if not sections or section_of(rule.key) in sections]
    if broken:
        raise ProblemsError(broken)


def section_of(key: str) -> str:
    """``transforms`` for ``transforms[0].size``."""
    return str(parse_path(key)[0])
