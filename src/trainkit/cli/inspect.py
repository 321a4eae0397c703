"""``trainkit inspect CONFIG|CHECKPOINT``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trainkit.cli import console
from trainkit.cli.options import Json, RunsDir, Set, Unset, load
from trainkit.wording import counted, listed, size_text

if TYPE_CHECKING:
    from trainkit.workflows.inspect import Inspection


MOST_ROWS = 50
"""A longer table is shown by blocks."""
GROUP_HEADER = ("modules", "parameters", "frozen", "learning rate x", "weight decay")


def inspect(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="CONFIG|CHECKPOINT",
            help="A config, a checkpoint, or a run by its folder or a part of its name; the newest run if left out.",
        ),
    ] = None,
    set_: Set = None,
    unset: Unset = None,
    source: Annotated[bool, typer.Option("--source", help="Show file and line of each layer's code.")] = False,
    batch: Annotated[
        bool, typer.Option("--batch", help="Run one batch: activations and gradients by layer, and what looks sick.")
    ] = False,
    runs_dir: RunsDir = Path("runs"),
    json: Json = False,
) -> None:
    """Show a model's layers: shapes, parameters, multiply-adds, memory, and where the code is."""

    if path is not None and is_config(path, runs_dir=runs_dir):
        loaded = load(path, set_, unset)

        from trainkit.workflows.inspect import inspect_config

        found = inspect_config(loaded, source=source, batch=batch)
    else:
        if set_ or unset:
            raise typer.BadParameter("a checkpoint has its config inside: --set and --unset are for configs")
        from trainkit.system import Frontend
        from trainkit.workflows.inspect import inspect_checkpoint

        found = inspect_checkpoint(path, runs_dir=runs_dir, source=source, batch=batch, frontend=Frontend(console.say))
    if json:
        console.print_json(as_json(found))
    else:
        show(found, source=source)


def is_config(path: Path, *, runs_dir: Path) -> bool:
    """Whether this is a config: by its suffix, else by its first bytes (a checkpoint is a zip file).

    Where there is no such file: whether a shipped config has this name, or no run has it in its name.
    """
    if path.is_dir() or path.suffix == ".pth":
        return False
    if path.suffix in (".yaml", ".yml"):
        return True
    if not path.exists():
        from trainkit.config.help import find_config
        from trainkit.system import list_runs

        is_shipped = find_config(path)[1] is not None
        return is_shipped or not any(str(path).lower() in run.path.name.lower() for run in list_runs(runs_dir))
    try:
        with open(path, "rb") as file:
            return file.read(4) != b"PK\x03\x04"
    except OSError:
        return True


def as_json(found: Inspection) -> dict[str, Any]:
    seen = found.diagnosis
    layers = []
    for row in found.rows:
        layer: dict[str, Any] = {key: value for key, value in vars(row).items() if value is not None}
        if seen is not None and row.name in seen.activities:
            layer["activity"] = vars(seen.activities[row.name])
        layers.append(layer)
    batch = None
    if seen is not None:
        batch = {"num_samples": seen.num_samples, "loss": seen.loss, "flags": [vars(flag) for flag in seen.flags]}
    return {
        "name": found.name,
        "input_shape": found.input_shape,
        "parameters": found.num_parameters,
        "trainable": found.num_trainable,
        "multiply_adds": found.multiply_adds,
        "activation_bytes": found.activation_bytes,
        "memory_bytes": found.memory.to_json(),
        "layers": layers,
        "parameter_groups": [
            {
                "modules": group.modules or ["all"],
                "parameters": group.num_parameters,
                "frozen": group.frozen,
                "lr_scale": group.lr_scale,
                "weight_decay": group.weight_decay,
            }
            for group in found.groups
        ],
        "batch": batch,
    }


def show(found: Inspection, *, source: bool) -> None:
    header = ["layer", "type", "input", "output", "parameters", "multiply-adds", "memory"]
    rows: list[list[object]] = []
    in_blocks = len(found.rows) > MOST_ROWS and found.diagnosis is None and not source
    for row in found.blocks if in_blocks else found.rows:
        cells: list[object] = [row.name, row.type, _shape(row.input_shape), _shape(row.output_shape)]
        cells += [f"{row.parameters:,}", f"{row.multiply_adds:,}", size_text(row.activation_bytes)]
        rows.append(cells)
    totals = [f"{found.num_parameters:,}", f"{found.multiply_adds:,}", size_text(found.activation_bytes)]
    rows.append(["total", "", _shape(found.input_shape), "", *totals])
    seen = found.diagnosis
    if seen is not None:
        header += ["mean", "spread", "zeros", "gradient"]
        for row, line in zip(found.rows, rows, strict=False):
            activity = seen.activities.get(row.name)
            if activity is not None:
                norm = "" if activity.grad_norm is None else f"{activity.grad_norm:.3g}"
                line += [f"{activity.mean:.3g}", f"{activity.std:.3g}", f"{activity.zeros:.0%}", norm]
    what = f"for one sample, the {len(found.rows)} layers by blocks (--json: each)" if in_blocks else "for one sample"
    console.plain_table(f"{found.name}: {what}\n", header, rows, left=4)
    groups = [
        [
            listed(group.modules, limit=6, quoted=False) if group.modules else "all",
            f"{group.num_parameters:,}",
            group.frozen or "no",
            f"{group.lr_scale:.3g}",
            "none" if group.weight_decay is None else f"{group.weight_decay:g}",
        ]
        for group in found.groups
    ]
    console.plain_table("parameter groups of the optimizer\n", GROUP_HEADER, groups)
    frozen = found.num_parameters - found.num_trainable
    lines = [
        ("parameters", f"{found.num_parameters:,}" + (f", {frozen:,} of them frozen" if frozen else "")),
        ("a batch", counted(found.batch_size, "sample")),
        ("memory", found.memory.describe()),
    ]
    if seen is not None:
        lines.append(("this batch", f"{counted(seen.num_samples, 'sample')}, loss {console.number(seen.loss)}"))
        lines += [(f"sick: {flag.kind}", f"{flag.key}: {flag.message}") for flag in seen.flags]
        if not seen.flags:
            lines.append(("looks healthy", "no dead units, no vanishing or exploding gradients, inputs in scale"))
    if source:
        lines += [(row.name, row.source or "unknown") for row in found.rows]
    console.lines(lines)


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
