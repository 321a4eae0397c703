"""``trainkit export``: a checkpoint's model as programs that run without trainkit, checked and in one folder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.builders import Setup, load_data, load_source, open_trained
from trainkit.checkpoints import known_sha256
from trainkit.config.schema.data import Csv
from trainkit.data.images import decode_image
from trainkit.data.pixel_rules import rules_of
from trainkit.data.transforms import apply_static_transforms, static_transforms_from_json
from trainkit.errors import Interrupted, TrainkitError, UserError
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
    has_static_transforms,
    make_files,
    measure_shrunk,
    write_bundle,
)
from trainkit.system import Frontend
from trainkit.workflows.find import find_checkpoint
from trainkit.workflows.scoring import preferred_split

FORMATS: tuple[Format, ...] = ("torchscript", "pt2", "onnx", "safetensors")
MIN_GOLDEN, MAX_GOLDEN = 64, 256
SAMPLE_SPLITS = ("val", "test", "train")
"""The samples of the check come from the first of these that the data have."""
GOLDEN_BYTES = 16 << 20
CALIBRATION_SAMPLES = 512


@dataclass(frozen=True)
class ExportResult:
    """A published bundle."""

    bundle: Path
    programs: tuple[Path, ...]
    report: Mapping[str, Any]
    """As in ``parity.json``."""


def export(
    checkpoint: str | Path | None = None,
    *,
    formats: tuple[Format, ...],
    method: Method = "script",
    output: str | Path | None = None,
    raw: bool = False,
    logits: bool = False,
    input_dtype: InputDtype = "uint8",
    half: bool = False,
    quantize: Quantization | None = None,
    max_drop: float = 0.01,
    data_root: str | Path | None = None,
    runs_dir: str | Path = "runs",
    frontend: Frontend | None = None,
) -> ExportResult:
    """Write a bundle. Each program is checked against the model in a fresh process; if one differs, nothing is written.

    Args:
        checkpoint: a file or a run folder; None for the best of the newest run under ``runs_dir``.
        data_root: where the data are now, in place of the config's ``root``, or of the folder of its tables.
        output: the folder to make; in the run's ``exports/`` when left out.
        max_drop: for ``half`` and ``quantize``: the largest loss of accuracy on the test split, as a fraction; for a
            regression the largest relative growth of the error.

    Raises:
        UserError: the request or the checkpoint is wrong; nothing was done.
        ExportError: a format cannot hold the model, or a program differs from the model.
        Interrupted: the frontend asked for a stop; nothing was written.
    """
    frontend = frontend or Frontend()
    request = check_request(ExportRequest(formats, method, raw, logits, input_dtype, half, quantize))
    output = None if output is None else Path(output)
    if output is not None:
        check_target(output)
    setup, source, path = _open(checkpoint, data_root=data_root, runs_dir=runs_dir, frontend=frontend)
    if output is None:
        output = free_name(default_exports(path) / f"{path.stem}_{_suffix(request)}")
    return _export(setup, source, request, output, max_drop=max_drop, frontend=frontend)


def check_request(request: ExportRequest) -> ExportRequest:
    """The request, its formats in a fixed order.

    Raises:
        UserError: no format, options that exclude each other, or missing packages.
    """
    if request.quantize and set(request.formats) - {"onnx"}:
        raise UserError("--quantize writes ONNX programs only; leave the other formats out, or export them apart")
    formats = request.formats or (("onnx",) if request.quantize else ())
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
        source = describe_source(setup, checkpoint, saved, averaged=saved["ema"] is not None)
        output = free_name(folder / f"{checkpoint.stem}_{_suffix(request)}")
        return list(_export(setup, source, request, output, frontend=frontend).programs), []
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
    setup, source, _ = _open(checkpoint, data_root=data_root, runs_dir=runs_dir, frontend=frontend)
    split = preferred_split(setup.data, SAMPLE_SPLITS)
    samples = pick_samples(setup, split, preprocessing=source.preprocessing, count=MIN_GOLDEN, with_images=False)
    return benchmark_formats(source, samples, calibration=lambda: calibration_inputs(setup, source), say=frontend.say)


def _open(
    checkpoint: str | Path | None, *, data_root: str | Path | None, runs_dir: str | Path, frontend: Frontend
) -> tuple[Setup, Source, Path]:
    """The checkpoint's model on its data. Exports are made and compared on the CPU, wherever it was trained."""
    given = None if checkpoint is None else Path(checkpoint)
    trained = open_trained(
        find_checkpoint(given, runs_dir=Path(runs_dir), frontend=frontend), device="cpu", data_root=data_root
    )
    setup = trained.setup(*load_data(trained.config, stored=trained.preprocessing, frontend=frontend))
    return setup, describe_source(setup, trained.path, trained.saved, averaged=trained.averaged), trained.path


def _export(
    setup: Setup,
    source: Source,
    request: ExportRequest,
    output: Path,
    *,
    max_drop: float = 0.01,
    frontend: Frontend,
) -> ExportResult:
    if "torchscript" in request.formats:
        frontend.say(TORCHSCRIPT_NOTE)
    split = preferred_split(setup.data, SAMPLE_SPLITS)
    source = replace(source, details={**source.details, "samples_from": split})
    samples = pick_samples(setup, split, preprocessing=source.preprocessing)
    calibration = partial(calibration_inputs, setup, source)
    files = make_files(source, request, samples, calibration=calibration, should_stop=frontend.stop)

    def measure(folder: Path) -> Mapping[str, Any]:
        test = "test" if "test" in setup.data.splits else split
        count = len(setup.data.splits[test])
        scored = pick_samples(setup, test, preprocessing=source.preprocessing, count=count, with_images=False)
        return measure_shrunk(source, request, scored, folder, split=test, max_drop=max_drop)

    shrunk = request.half or request.quantize
    report = write_bundle(output, files, measure=measure if shrunk else None, should_stop=frontend.stop)
    programs = tuple(output / name for name in report["programs"])
    return ExportResult(output, programs, report)


def _suffix(request: ExportRequest) -> str:
    names = "all" if request.formats == FORMATS else "-".join(request.formats)
    extra = "raw" if request.raw else {"float16": "fp16", "int8": "int8"}.get(request.precision, "")
    return f"{names}_{extra}" if extra else names


def default_exports(checkpoint: Path) -> Path:
    """``exports/`` in the run folder, or beside a checkpoint that is in none."""
    folder = checkpoint.resolve().parent
    return (folder.parent if folder.name == "checkpoints" else folder) / "exports"


def describe_source(setup: Setup, path: Path, saved: Mapping[str, Any], *, averaged: bool) -> Source:
    """The setup's model, which has the weights of the checkpoint, and all that its programs need."""
    dataset = setup.config.dataset
    digest = known_sha256(path)
    if digest is None:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    details = {
        "checkpoint": {"name": path.name, "sha256": digest},
        "weights": "averaged (EMA)" if averaged else "of the last step",
        "classes": list(setup.data.class_names),
        "model": saved["config"]["model"],
        "versions": saved["versions"],
    }
    return Source(
        name=saved["name"],
        model=setup.model,
        preprocessing=saved["preprocessing"],
        loss=setup.loss.name,
        task=setup.data.task,
        class_names=setup.data.class_names,
        target_names=setup.data.target_names,
        details=details,
        delimiter=dataset.delimiter if isinstance(dataset, Csv) else ",",
    )


def pick_samples(
    setup: Setup,
    split: str,
    *,
    preprocessing: Mapping[str, Any],
    count: int | None = None,
    with_images: bool = True,
) -> Samples:
    """Samples evenly spread over a split, loaded again from the source where there are static transforms.

    At least ``MIN_GOLDEN``: those of a smaller split are repeated. Where images differ in size before the static
    transforms, those of the most common size are repeated, so that they make a batch.

    Args:
        count: the number of samples; when left out, as many as ``GOLDEN_BYTES`` hold, up to ``MAX_GOLDEN``.
        with_images: also give the images before the static transforms, where there are any.
    """
    indices = setup.data.splits[split].indices
    if count is None:
        sample_bytes = 4 * int(np.prod(preprocessing["input_shape"]))
        count = max(MIN_GOLDEN, min(MAX_GOLDEN, len(indices), GOLDEN_BYTES // sample_bytes))
    chosen = np.resize(indices, count)
    if count <= len(indices):
        chosen = indices[np.linspace(0, len(indices) - 1, count).round().astype(np.int64)]
    part = setup.data.splits[split].part
    targets = setup.data.parts[part].targets[chosen]
    if not has_static_transforms(preprocessing):
        return Samples(np.ascontiguousarray(_rows(setup.data.parts[part].inputs, chosen, preprocessing)), targets)
    raw = _decode(load_source(setup.config).parts[part].inputs, chosen, preprocessing)
    static_transforms = static_transforms_from_json(preprocessing["front"])
    inputs = _batch([apply_static_transforms(image, static_transforms) for image in raw])
    if not with_images:
        return Samples(inputs, targets)
    shapes = [image.shape for image in raw]
    common = max(dict.fromkeys(shapes), key=shapes.count)
    same = np.resize([i for i, shape in enumerate(shapes) if shape == common], count)
    return Samples(inputs, targets, _batch([raw[i] for i in same]), targets[same])


def _batch(images: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Images of one size as one contiguous array (N, C, H, W)."""
    return np.ascontiguousarray(np.stack(images))


def _rows(inputs: Any, chosen: NDArray[np.int64], preprocessing: Mapping[str, Any]) -> NDArray[Any]:
    if isinstance(inputs, tuple):  # files of equal size that do not fit into memory
        return _batch(_decode(inputs, chosen, preprocessing))
    rows: NDArray[Any] = inputs[chosen]
    return rows


def _decode(inputs: Any, chosen: NDArray[np.int64], preprocessing: Mapping[str, Any]) -> list[NDArray[Any]]:
    if isinstance(inputs, tuple):
        channels, rules = preprocessing["channels"], rules_of(preprocessing)
        return [decode_image(inputs[index], channels=channels, rules=rules) for index in chosen]
    return list(inputs[chosen])


def calibration_inputs(setup: Setup, source: Source) -> NDArray[Any]:
    """Training samples as programs take them."""
    count = min(CALIBRATION_SAMPLES, len(setup.data.splits["train"]))
    preprocessing = source.preprocessing
    return pick_samples(setup, "train", preprocessing=preprocessing, count=count, with_images=False).inputs
