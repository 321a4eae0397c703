"""``trainkit export [CHECKPOINT] --torchscript | --pt2 | --onnx | --safetensors | --all``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from trainkit.cli import console
from trainkit.cli.options import Checkpoint, DataRoot, Json, Quiet, RunsDir
from trainkit.wording import counted


def export(
    checkpoint: Checkpoint = None,
    torchscript: Annotated[bool, typer.Option("--torchscript", help="Write a TorchScript program (libtorch).")] = False,
    pt2: Annotated[bool, typer.Option("--pt2", help="Write a torch.export program.")] = False,
    onnx: Annotated[
        bool, typer.Option("--onnx", help="Write an ONNX program (needs onnx, onnxscript, onnxruntime).")
    ] = False,
    safetensors: Annotated[bool, typer.Option("--safetensors", help="Write the weights as safetensors.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Write all four into one bundle.")] = False,
    method: Annotated[Literal["script", "trace"], typer.Option(help="How TorchScript is made.")] = "script",
    output: Annotated[Path | None, typer.Option(help="The folder to make; in the run's exports/ if left out.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="The bare network, without preprocessing.")] = False,
    logits: Annotated[bool, typer.Option("--logits", help="Logits as a second output.")] = False,
    input_dtype: Annotated[
        Literal["uint8", "float32"],
        typer.Option(help="Images: bytes, or floats in [0, 1] (a TorchScript script takes both)."),
    ] = "uint8",
    half: Annotated[bool, typer.Option("--half", help="Compute in float16.")] = False,
    quantize: Annotated[
        Literal["dynamic", "static"] | None, typer.Option(help="An int8 ONNX program; static calibrates on train.")
    ] = None,
    triton: Annotated[
        bool, typer.Option("--triton", help="A model repository of Triton in the bundle (ONNX).")
    ] = False,
    max_drop: Annotated[
        float, typer.Option(min=0, help="With --half or --quantize: test accuracy that may be lost (0.01: a point).")
    ] = 0.01,
    benchmark: Annotated[bool, typer.Option("--benchmark", help="Compare the formats; write nothing.")] = False,
    verify: Annotated[Path | None, typer.Option(metavar="BUNDLE", help="Check a bundle again.")] = None,
    data_root: DataRoot = None,
    runs_dir: RunsDir = Path("runs"),
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a checkpoint's model as programs that run without trainkit, checked in a process without it."""
    from trainkit.exports import ExportRequest, verify_bundle
    from trainkit.workflows import export as workflow

    if verify is not None:
        report = verify_bundle(verify)
        _show(report, json=json, title=f"{verify}: OK", path=verify)
        return
    if benchmark:
        with console.frontend(quiet=quiet) as frontend:
            rows = workflow.benchmark(checkpoint, data_root=data_root, runs_dir=runs_dir, frontend=frontend)
        _show_benchmark(rows, json=json)
        return
    asked = {"torchscript": torchscript, "pt2": pt2, "onnx": onnx, "safetensors": safetensors}
    formats = tuple(format for format in workflow.FORMATS if everything or asked[format])
    request = ExportRequest(formats, method, raw, logits, input_dtype, half, quantize, triton, max_drop)
    with console.frontend(quiet=quiet, on_signal="giving the export up", stopped="nothing was written") as frontend:
        result = workflow.export(
            checkpoint,
            request,
            output=output,
            data_root=data_root,
            runs_dir=runs_dir,
            frontend=frontend,
        )
    _show(result.report, json=json, title=None, path=result.bundle)


def _show(report: Mapping[str, Any], *, json: bool, title: str | None, path: Path) -> None:
    if json:
        console.print_json({"bundle": str(path), **report})
        return
    rows: list[list[object]] = []
    for name, program in report["programs"].items():
        if "tensors" in program:
            rows.append([name, f"{counted(program['tensors'], 'tensor')}", "bitwise", "", ""])
            continue
        agreement = program["batch_sizes"]["64"].get("class_agreement")
        change = f"{program['metric']} {program['change']:+.4f}" if "metric" in program else ""
        rows.append([name, f"{program['error']:.1e}", f"{program['tolerance']:.0e}", agreement or "", change])
    console.table(title, ["program", "largest error", "allowed", "same class", "change"], rows)
    if "shrunk" in report:
        _show_shrunk(report["shrunk"])
    console.lines([("bundle", str(path)), *(("", str(path / name)) for name in report["programs"])])


def _show_shrunk(rows: Mapping[str, Mapping[str, Any]]) -> None:
    header = ["program", "kB", "of float32", "ms at 1", "ms at 64", "score", "drop"]
    table = [
        [
            name,
            f"{row['bytes'] / 1e3:.1f}",
            f"{row['size_ratio']:.2f} x" if "size_ratio" in row else "",
            _milliseconds(row["p50_ms_1"]),
            _milliseconds(row["p50_ms_64"]),
            f"{row['score']:.4f}",
            f"{row['drop']:+.4f}",
        ]
        for name, row in rows.items()
    ]
    console.table("smaller, and what it costs (PyTorch is the model itself)", header, table)


def _milliseconds(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _show_benchmark(rows: list[dict[str, Any]], *, json: bool) -> None:
    if json:
        console.print_json(rows)
        return
    header = ["format", "kB", "load ms", "p50 at 1", "p99 at 1", "p50 at 64", "p99 at 64", "samples / s", "MB"]
    keys = ("load_ms", "p50_ms_1", "p99_ms_1", "p50_ms_64", "p99_ms_64")
    table = []
    for row in rows:
        if "skipped" in row:
            console.say(f"{row['format']}: skipped, {row['skipped']}")
            continue
        times = [_milliseconds(row[key]) if key in row else "" for key in keys]
        memory = f"{row['memory_mb']:.1f}" if "memory_mb" in row else ""
        table.append([row["format"], f"{row['bytes'] / 1e3:.1f}", *times, f"{row['throughput']:.0f}", memory])
    console.table("milliseconds by batch size, a process each; MB above the runtime's own", header, table)
