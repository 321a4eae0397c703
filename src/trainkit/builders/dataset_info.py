"""The facts about the opened data, as plain numbers, and the rules about configs checked with them."""

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
    """The config's knowledge of its data, completed and corrected by the data themselves.

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
    with suppress(UserError):  # no image can be read: the shape stays unknown
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
    """Check the rules about configs against the opened data.

    Args:
        where: as for ``trainkit.config.rules.check``.
        materialized: the static transforms are done in ``data``.
        sections: only the rules for these sections of the config; all of them when left out.

    Raises:
        ProblemsError: every rule that the config breaks.
    """
    broken = check(config, where, dataset_info(config, data, materialized=materialized))
    problems = [Problem(rule.message, rule.key) for rule in broken if not sections or section_of(rule.key) in sections]
    if problems:
        raise ProblemsError(problems)


def section_of(key: str) -> str:
    """``transforms`` for ``transforms[0].size``."""
    return str(parse_path(key)[0])
