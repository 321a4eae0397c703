"""Programs that run without trainkit, each with its preprocessing, its labels and golden outputs."""

from trainkit.exports.assemble import ExportRequest, Samples, Source, make_files
from trainkit.exports.bundle import check_target, free_name, verify_bundle, write_bundle
from trainkit.exports.formats import TORCHSCRIPT_NOTE, ExportError, Format, Method, Quantization, check_packages
from trainkit.exports.measure import benchmark_formats, measure_shrunk
from trainkit.exports.program import InputDtype, has_static_transforms
from trainkit.exports.standalone_runner import Run, load, prepare

__all__ = [
    "TORCHSCRIPT_NOTE",
    "ExportError",
    "ExportRequest",
    "Format",
    "InputDtype",
    "Method",
    "Quantization",
    "Run",
    "Samples",
    "Source",
    "benchmark_formats",
    "check_packages",
    "check_target",
    "free_name",
    "has_static_transforms",
    "load",
    "make_files",
    "measure_shrunk",
    "prepare",
    "verify_bundle",
    "write_bundle",
]
