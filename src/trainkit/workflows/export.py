"""``trainkit export``: a checkpoint's model as programs that run without trainkit, checked and in one folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

from numpy.typing import NDArray
from torch import nn

from trainkit.builders import Setup, TrainedModel, load_data
from trainkit.checkpoints import known_sha256
from trainkit.engine import LossName
from trainkit.errors import DataError, Interrupted, TrainkitError, UserError, check_choice
from trainkit.exports import (
    TORCHSCRIPT_NOTE,
    ExportRequest,
    Format,
    InputDtype,
    Method,
    Quantization,
    Samples,
    Source,
    benchmark_formats,
    check_packages,
    check_target,
    free_name,
    make_files,
    measure_shrunk,
    write_bundle,
)
from trainkit.system import Frontend
from trainkit.wording import SPLITS, counted
from trainkit.workflows.find import open_checkpoint
from trainkit.workflows.samples import MIN_GOLDEN, SAMPLE_SPLITS, calibration_inputs, kept_samples, pick_samples
from trainkit.workflows.scoring import preferred_split

FORMATS: tuple[Format, ...] = ("torchscript", "pt2", "onnx", "safetensors")


@dataclass(frozen=True)
class ExportResult:
    """A published bundle."""

    bundle: Path
    programs: tuple[Path, ...]
    report: Mapping[str, Any]
    """As in ``parity.json``."""


def export(
    checkpoint: str | Path | None,
    request: ExportRequest,
    *,
    output: str | Path | None = None,
    data_root: str | Path | None = None,
    runs_dir: str | Path = "runs",
    frontend: Frontend | None = None,
) -> ExportResult:
    """Write a bundle. Each program is checked against the model in a fresh process; if one differs, nothing is written.

    The arguments are those of ``trainkit.export``.

    Raises:
        UserError: the request or the checkpoint is wrong; nothing was done.
        ExportError: a format cannot hold the model, or a program differs from the model.
        Interrupted: the frontend asked for a stop; nothing was written.
    """
    frontend = frontend or Frontend()
    request = check_request(request)
    output = None if output is None else Path(output)
    if output is not None:
        check_target(output)
    trained, source = _open(checkpoint, data_root=data_root, runs_dir=runs_dir, frontend=frontend)
    if output is None:
        output = free_name(default_exports(trained.path) / f"{trained.path.stem}_{_suffix(request)}")
    shrunk = f"--{'half' if request.half else 'quantize'}" if request.half or request.quantize else None
    kept = kept_samples(trained) if data_root is None and shrunk is None else None
    if kept is None:
        setup = _on_data(trained, needed_by=shrunk, frontend=frontend)
        return _export_on_data(setup, source, request, output, frontend=frontend)
    split, count, samples = kept
    frontend.say(
        f"compared on {counted(count, f'{SPLITS[split]} sample')} from the checkpoint; "
        "--data-root DIR takes more from the data"
    )
    source = _with_details(source, split=split, count=count)
    return _export(source, request, samples, output, frontend=frontend)


def check_request(request: ExportRequest) -> ExportRequest:
    """The request, its formats in a fixed order.

    Raises:
        UserError: no format, an unknown word, options that exclude each other, or missing packages.
    """
    for name, values, kind in (
        ("formats", request.formats, Format),
        ("method", [request.method], Method),
        ("input_dtype", [request.input_dtype], InputDtype),
        ("quantize", [] if request.quantize is None else [request.quantize], Quantization),
    ):
        for value in values:
            check_choice(name, value, get_args(kind))
    if request.quantize and set(request.formats) - {"onnx"}:
        raise UserError("--quantize writes ONNX programs only; leave the other formats out, or export them apart")
    formats = request.formats or (("onnx",) if request.quantize or request.triton else ())
    if request.triton and "onnx" not in formats:
        raise UserError("--triton takes the ONNX program; add --onnx")
    if not formats:
        raise UserError("nothing to write; add --torchscript, --pt2, --onnx, --safetensors or --all")
    for first, second, why in (
        (request.quantize, request.half, "--quantize and --half exclude each other"),
        (request.raw, request.quantize, "--raw and --quantize exclude each other"),
        (request.raw, request.half, "--raw and --half exclude each other"),
        (request.raw, request.logits, "--raw gives the network's own outputs already; leave --logits out"),
    ):
        if first and second:
            raise UserError(why)
    check_packages(formats)
    return replace(request, formats=tuple(format for format in FORMATS if format in formats))


def export_at_end(
    setup: Setup, checkpoint: Path, saved: Mapping[str, Any], *, folder: Path, frontend: Frontend
) -> tuple[list[Path], list[str]]:
    """Export at the end of training, into ``folder``, as the config's ``export:`` says.

    Args:
        setup: with the scored weights of the checkpoint in its model.
        saved: the checkpoint, loaded.

    Returns:
        The programs, and the reasons for formats that could not be written: they do not fail the run.

    Raises:
        Interrupted: the frontend asked for a stop; nothing half-written is left.
    """
    spec = setup.config.export
    if not spec.torchscript:
        return [], []
    try:
        request = ExportRequest(("torchscript",), spec.method)
        source = describe_source(
            setup.model, checkpoint, saved, loss=setup.loss.name, averaged=saved["ema"] is not None
        )
        output = free_name(folder / f"{checkpoint.stem}_{_suffix(request)}")
        return list(_export_on_data(setup, source, request, output, frontend=frontend).programs), []
    except Interrupted:
        raise
    except (TrainkitError, OSError) as error:
        return [], [f"torchscript: {error}"]


def benchmark(
    checkpoint: str | Path | None = None,
    *,
    data_root: str | Path | None = None,
    runs_dir: str | Path = "runs",
    frontend: Frontend | None = None,
) -> list[dict[str, Any]]:
    """Size, load time, latency, throughput and memory of a checkpoint's model in every format; nothing is kept."""
    frontend = frontend or Frontend()
    trained, source = _open(checkpoint, data_root=data_root, runs_dir=runs_dir, frontend=frontend)
    setup = _on_data(trained, needed_by="--benchmark", frontend=frontend)
    split = preferred_split(setup.data, SAMPLE_SPLITS)
    samples = pick_samples(setup, split, preprocessing=source.preprocessing, count=MIN_GOLDEN, with_images=False)
    return benchmark_formats(source, samples, calibration=lambda: calibration_inputs(setup, source), say=frontend.say)


def _open(
    checkpoint: str | Path | None, *, data_root: str | Path | None, runs_dir: str | Path, frontend: Frontend
) -> tuple[TrainedModel, Source]:
    """The checkpoint's model. Exports are made and compared on the CPU, wherever it was trained."""
    trained = open_checkpoint(checkpoint, device="cpu", data_root=data_root, runs_dir=runs_dir, frontend=frontend)
    averaged = trained.averaged
    return trained, describe_source(
        trained.model, trained.path, trained.saved, loss=trained.loss.name, averaged=averaged
    )


def _on_data(trained: TrainedModel, *, needed_by: str | None, frontend: Frontend) -> Setup:
    """The model on its data. ``needed_by`` is the option that cannot do without; None: the checkpoint has no samples.

    Raises:
        DataError: the data are gone or broken.
    """
    try:
        data, files = load_data(trained.config, stored=trained.preprocessing, frontend=frontend)
    except UserError as error:
        why = "this checkpoint has no samples to compare programs on, so export needs the data"
        if needed_by is not None:
            why = f"{needed_by} needs the data"
        raise DataError(f"{error}\n{why}; where they have moved, add --data-root DIR") from error
    return trained.setup(data, files)


def _export_on_data(
    setup: Setup, source: Source, request: ExportRequest, output: Path, *, frontend: Frontend
) -> ExportResult:
    """Export with samples of the data, which smaller programs are also scored on."""
    split = preferred_split(setup.data, SAMPLE_SPLITS)
    samples = pick_samples(setup, split, preprocessing=source.preprocessing)
    source = _with_details(source, split=split, count=min(len(samples.inputs), len(setup.data.splits[split])))

    def measure(folder: Path) -> Mapping[str, Any]:
        test = "test" if "test" in setup.data.splits else split
        count = len(setup.data.splits[test])
        scored = pick_samples(setup, test, preprocessing=source.preprocessing, count=count, with_images=False)
        return measure_shrunk(source, request, scored, folder, split=test)

    return _export(
        source,
        request,
        samples,
        output,
        calibration=partial(calibration_inputs, setup, source),
        measure=measure if request.half or request.quantize else None,
        frontend=frontend,
    )


def _export(
    source: Source,
    request: ExportRequest,
    samples: Samples,
    output: Path,
    *,
    calibration: Callable[[], NDArray[Any]] | None = None,
    measure: Callable[[Path], Mapping[str, Any]] | None = None,
    frontend: Frontend,
) -> ExportResult:
    if "torchscript" in request.formats:
        frontend.say(TORCHSCRIPT_NOTE)
    files = make_files(source, request, samples, calibration=calibration, should_stop=frontend.stop)
    report = write_bundle(output, files, measure=measure, should_stop=frontend.stop)
    programs = tuple(output / name for name in report["programs"])
    return ExportResult(output, programs, report)


def _with_details(source: Source, *, split: str, count: int) -> Source:
    """With the split of the samples, and how many different ones they are: of few, each is there several times."""
    return replace(source, details={**source.details, "samples_from": split, "num_samples": count})


def _suffix(request: ExportRequest) -> str:
    names = "all" if request.formats == FORMATS else "-".join(request.formats)
    extra = "raw" if request.raw else {"float16": "fp16", "int8": "int8"}.get(request.precision, "")
    return f"{names}_{extra}" if extra else names


def default_exports(checkpoint: Path) -> Path:
    """``exports/`` in the run folder, or beside a checkpoint that is in none."""
    folder = checkpoint.resolve().parent
    return (folder.parent if folder.name == "checkpoints" else folder) / "exports"


def describe_source(
    model: nn.Module, path: Path, saved: Mapping[str, Any], *, loss: LossName, averaged: bool
) -> Source:
    """A checkpoint's model, with its scored weights, and all that its programs need.

    Args:
        saved: the checkpoint; its tensors are not used.
        loss: what its outputs mean.
    """
    digest = known_sha256(path)
    if digest is None:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    classes = tuple(saved["class_names"])
    details = {
        "checkpoint": {"name": path.name, "sha256": digest},
        "weights": "averaged (EMA)" if averaged else "of the last step",
        **({"members": len(saved["members"])} if saved.get("members") else {}),
        "classes": list(classes),
        "model": saved["config"]["model"],
        "versions": saved["versions"],
    }
    return Source(
        name=saved["name"],
        model=model,
        preprocessing=saved["preprocessing"],
        loss=loss,
        task="classification" if classes else "regression",
        class_names=classes,
        target_names=tuple(saved["target_names"]),
        details=details,
    )
