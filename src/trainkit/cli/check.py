"""``trainkit check CONFIG``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainkit.cli import console
from trainkit.cli.options import ConfigFile, Json, RunsDir, Set, Unset, load
from trainkit.wording import counted, size_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from trainkit.config import LoadedConfig
    from trainkit.workflows.check import CheckReport


def check(
    config: ConfigFile, set_: Set = None, unset: Unset = None, runs_dir: RunsDir = Path("runs"), json: Json = False
) -> None:
    """Find every mistake that can be found before training, without writing anything."""
    loaded = load(config, set_, unset)
    from trainkit.workflows.check import check as run_check

    show_check(loaded, run_check, runs_dir=runs_dir, json=json)


def show_check(loaded: LoadedConfig, run_check: Callable[..., CheckReport], *, runs_dir: Path, json: bool) -> None:
    """Check and print the summary on stdout; also what ``trainkit train --dry-run`` does."""
    with console.frontend("looking at images", quiet=False, stopped="nothing was written") as frontend:
        found = run_check(loaded, runs_dir=runs_dir, frontend=frontend)
    if json:
        console.print_json(as_json(found))
        return
    print(f"ok: {loaded.path} can be trained")
    console.lines(summary(found))
    if found.source.columns:
        print("\n".join(column_lines(found.source.columns)))


def as_json(found: CheckReport) -> dict[str, Any]:
    data, memory = found.source, found.costs.memory
    return {
        "config": str(found.loaded.path),
        "name": found.loaded.name,
        "data": {
            "name": data.name,
            "task": data.task,
            "splits": {name: len(data.splits[name]) for name in data.split_names},
            "num_classes": data.num_classes,
            "class_names": list(data.class_names),
            "class_counts": {name: data.class_counts(name) for name in data.split_names},
            "target_names": list(data.target_names),
            "input_shape": list(found.input_shape),
            "columns": list(data.columns),
        },
        "model": {
            "type": found.loaded.config.model.type,
            "parameters": found.num_parameters,
            "multiply_adds": sum(row.multiply_adds for row in found.rows),
            "output_size": found.output_size,
        },
        "training": {
            "epochs": found.loaded.config.training.epochs,
            "steps_per_epoch": found.sizes.steps_per_epoch,
            "total_steps": found.total_steps,
            "last_batch": found.sizes.last_batch,
            "piece": found.sizes.piece,
        },
        "memory_bytes": memory.to_json(),
        "disk_bytes": {"checkpoint": found.costs.checkpoint_bytes, "free": found.costs.free_disk},
        "choices": {name: asdict(choice) for name, choice in found.choices.items()},
        "notes": list(found.notes),
    }


def summary(found: CheckReport) -> list[tuple[str, str]]:
    """Name and text of each line."""
    from trainkit.workflows.check import kept_checkpoints

    data, sizes, config = found.source, found.sizes, found.loaded.config
    what = f"{data.num_classes} classes" if data.num_classes else f"{counted(data.num_targets, 'value')} to predict"
    splits = ", ".join(f"{name} {len(data.splits[name]):,}" for name in data.split_names)
    shape = " x ".join(map(str, found.input_shape))
    multiply_adds = sum(row.multiply_adds for row in found.rows)
    ragged = f", the last of {sizes.last_batch}" if sizes.last_batch != sizes.batch_size else ""
    in_pieces = (
        f" in {sizes.accumulation_steps} pieces of {sizes.piece} at most" if sizes.accumulation_steps > 1 else ""
    )
    disk = "" if found.costs.free_disk is None else f", {size_text(found.costs.free_disk)} free"
    count, network = kept_checkpoints(config), getattr(config.model, "name", config.model.type)
    return [
        ("data", f"{data.name}: {splits} samples; {what}; model inputs {shape}"),
        (
            "model",
            f"{network}: {found.num_parameters:,} parameters, {counted(len(found.rows), 'layer')}, "
            f"{multiply_adds:,} multiply-adds a sample",
        ),
        (
            "training",
            f"{counted(config.training.epochs, 'epoch')} x {counted(sizes.steps_per_epoch, 'step')} = "
            f"{found.total_steps:,}; "
            f"batches of {sizes.batch_size}{in_pieces}{ragged}",
        ),
        ("memory", found.costs.memory.describe()),
        ("disk", f"{counted(count, 'checkpoint')} of about {size_text(found.costs.checkpoint_bytes)}{disk}"),
        *([("classes", classes)] if (classes := data.describe_classes()) else []),
        *((name, f"{choice.value} ({choice.reason})") for name, choice in found.choices.items()),
        *(("note", note) for note in found.notes),
    ]


def column_lines(columns: Sequence[Mapping[str, Any]], *, limit: int = 50) -> list[str]:
    """A table of the columns of a table: column, kind, missing cells, different values, reason."""
    rows = [("column", "kind", "missing", "distinct", "reason")]
    rows += [(row["name"][:40], row["kind"], f"{row['missing']:,}", row["distinct"], row["reason"]) for row in columns]
    widths = [max(len(row[place]) for row in rows[: limit + 1]) for place in range(4)]
    lines = [
        f"  {row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]:>{widths[3]}}  {row[4]}"
        for row in rows[: limit + 1]
    ]
    more = len(columns) - limit
    return [*lines, f"  and {counted(more, 'column')} more"] if more > 0 else lines
