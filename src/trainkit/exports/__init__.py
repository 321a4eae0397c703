"""Programs that run without trainkit, each with its preprocessing, its labels and golden outputs."""
# mypy: implicit-reexport

from trainkit.exports.assemble import ExportRequest, Samples, Source, make_files
from trainkit.exports.bundle import check_target, free_name, verify_bundle, write_bundle
from trainkit.exports.formats import TORCHSCRIPT_NOTE, ExportError, Format, Method, Quantization, check_packages
from trainkit.exports.measure import benchmark_formats, measure_shrunk
from trainkit.exports.program import InputDtype, has_static_transforms
from trainkit.exports.standalone_runner import Run, load, prepare
