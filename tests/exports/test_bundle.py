"""A bundle is whole or absent, and every change of it is found."""

import dataclasses
import hashlib
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import trainkit
from trainkit.errors import Interrupted, UserError
from trainkit.exports import bundle as bundles
from trainkit.exports.assemble import ExportRequest, Samples, Source, make_files
from trainkit.exports.bundle import (
    check_target,
    free_name,
    golden_bytes,
    verify_bundle,
    write_bundle,
)
from trainkit.exports.formats import ExportError, torchscript_bytes
from trainkit.exports.parity import RUNNER
from trainkit.exports.program import build_program
from trainkit.system import durable

PREPROCESSING = {
    "kind": "image",
    "channels": 1,
    "front": [],
    "scale": 255,
    "normalize": {"mean": [0.4], "std": [0.2]},
    "input_shape": [1, 6, 6],
}


@pytest.fixture(scope="module")
def source():
    torch.manual_seed(0)
    return Source(
        name="net",
        model=nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 3)),
        preprocessing=PREPROCESSING,
        loss="cross_entropy",
        task="classification",
        class_names=("ant", "bee", "Käfer"),
        target_names=(),
        details={"classes": ["ant", "bee", "Käfer"]},
    )


@pytest.fixture(scope="module")
def samples():
    generator = np.random.default_rng(0)
    return Samples(generator.integers(0, 256, (64, 1, 6, 6), dtype=np.uint8), generator.integers(0, 3, 64))


@pytest.fixture(scope="module")
def files(source, samples):
    return make_files(source, ExportRequest(("torchscript", "safetensors")), samples)


@pytest.fixture(scope="module")
def written(files, tmp_path_factory):
    """A bundle and its report."""
    target = tmp_path_factory.mktemp("exports") / "net_torchscript"
    return target, write_bundle(target, files)


@pytest.fixture
def copied(written, tmp_path):
    return shutil.copytree(written[0], tmp_path / "copy")


def rewrite_sums(folder):
    """Make the checksums fit changed files."""
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}"
        for path in sorted(folder.iterdir())
        if path.name != "SHA256SUMS"
    ]
    (folder / "SHA256SUMS").write_text("\n".join(lines) + "\n")


def test_what_is_inside(written):
    target, report = written
    assert sorted(path.name for path in target.iterdir()) == [
        "Dockerfile",
        "README.md",
        "SHA256SUMS",
        "front.py",
        "golden.npz",
        "labels.json",
        "model.pt",
        "model.safetensors",
        "parity.json",
        "predict.py",
        "requirements.txt",
        "serve.html",
        "serve.py",
        "serve_batches.py",
        "serve_http.py",
        "serve_inputs.py",
        "serve_openapi.py",
        "serve_process.py",
        "signature.json",
    ]
    assert json.loads((target / "parity.json").read_text()) == report
    assert report["programs"]["model.pt"]["batch_sizes"].keys() == {"1", "2", "7", "64"}
    assert report["programs"]["model.pt"]["error"] <= 1e-5
    assert report["programs"]["model.pt"]["batch_sizes"]["7"]["class_agreement"] == 1.0
    assert report["programs"]["model.pt"]["change"] == 0.0
    assert report["programs"]["model.safetensors"] == {"passed": True, "tensors": 4, "differing_tensors": []}
    assert json.loads((target / "labels.json").read_text()) == ["ant", "bee", "Käfer"]
    assert [path.name for path in target.parent.iterdir()] == ["net_torchscript"]


def records_of(data):
    """A file's bytes and, of an archive, those of its records; by name."""
    records = {"": data}
    if data.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            assert archive.testzip() is None
            records |= {name: archive.read(name) for name in archive.namelist()}
    return records


def test_nothing_names_the_machine_that_made_it(source, samples, written):
    """Neither the folders of trainkit and PyTorch, nor the home or the working folder."""
    paths = [Path(module.__file__).parents[1] for module in (trainkit, torch)] + [Path.home(), Path.cwd()]
    contents = make_files(source, ExportRequest(("torchscript", "pt2", "onnx", "safetensors")), samples)
    contents["traced.pt"] = make_files(source, ExportRequest(("torchscript",), "trace"), samples)["model.pt"]
    contents |= {f"written {path.name}": path.read_bytes() for path in written[0].iterdir()}
    for file, data in contents.items():
        for name, record in records_of(data).items():
            assert not [path for path in paths if str(path).encode() in record], (file, name)


def test_torchscript_records_start_where_pytorch_puts_them(written):
    data = (written[0] / "model.pt").read_bytes()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        starts = [record.header_offset for record in archive.infolist()]
    for start in starts:
        assert (start + 30 + sum(struct.unpack("<HH", data[start + 26 : start + 30]))) % 64 == 0


def test_the_signature(written):
    signature = json.loads((written[0] / "signature.json").read_text())
    program = signature["programs"]["model.pt"]
    assert program["input"] == {
        "name": "images",
        "dtypes": ["uint8", "float32"],
        "shape": ["batch", 1, 6, 6],
        "range": {"uint8": [0, 255], "float32": [0.0, 1.0]},
        "layout": "NCHW",
        "colors": "grey",
        "dynamic_axes": {"0": "batch"},
    }
    (output,) = program["outputs"]
    assert output == {
        "name": "probabilities",
        "dtypes": ["float32"],
        "shape": ["batch", 3],
        "range": {"float32": [0.0, 1.0]},
    }
    assert signature["preprocessing"] == PREPROCESSING


def test_a_whole_bundle_verifies(written):
    assert verify_bundle(written[0])["passed"]


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors", "signature.json", "golden.npz", "predict.py"])
def test_a_flipped_bit_is_noticed(copied, name):
    data = bytearray((copied / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copied / name).write_bytes(data)
    with pytest.raises(ExportError, match=rf"{name} has changed since the export$"):
        verify_bundle(copied)


def test_files_that_come_and_go_are_noticed(copied):
    (copied / "labels.json").unlink()
    (copied / "extra.py").write_text("")
    with pytest.raises(ExportError, match=r"labels.json is missing\n.*extra.py is not listed in SHA256SUMS"):
        verify_bundle(copied)


def test_a_flipped_weight_and_a_wrong_mean_are_noticed_by_the_answers(source, samples, files, tmp_path):
    """Even with sums that fit. A bare network is run on what signature.json makes of the raw samples."""
    flipped = build_program(source.model, PREPROCESSING, loss="cross_entropy")
    with torch.no_grad():
        flipped.model[3].weight[1, 2] *= -1
    raw = make_files(source, ExportRequest(("torchscript",), "trace", raw=True), samples)
    assert "predict.py" not in raw
    signature, golden = json.loads(files["signature.json"]), dict(np.load(io.BytesIO(files["golden.npz"])))
    bare = json.loads(raw["signature.json"])["programs"]["model.pt"]
    assert bare["input"]["dtypes"] == ["float32"]
    wrong_mean = {**bare, "outside": {**bare["outside"], "normalize": {"mean": [0.41], "std": [0.2]}}}
    signature["programs"] |= {
        "flipped.pt": signature["programs"]["model.pt"],
        "raw.pt": bare,
        "wrong_mean.pt": wrong_mean,
    }
    contents = {
        **files,
        "flipped.pt": torchscript_bytes(flipped, torch.from_numpy(samples.inputs[:2]), method="script"),
        "raw.pt": raw["model.pt"],
        "wrong_mean.pt": raw["model.pt"],
        "signature.json": json.dumps(signature).encode(),
        "golden.npz": golden_bytes(golden | dict(np.load(io.BytesIO(raw["golden.npz"])))),
    }
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    rewrite_sums(tmp_path)
    with pytest.raises(ExportError) as caught:
        verify_bundle(tmp_path)
    messages = [line.removeprefix(f"{tmp_path}: ").split(":")[0] for line in str(caught.value).splitlines()]
    assert messages == [f"{name} does not answer as the model does" for name in ("flipped.pt", "wrong_mean.pt")]


def test_a_program_that_answers_otherwise_is_not_published(files, source, samples, tmp_path):
    other = dataclasses.replace(source, preprocessing={**PREPROCESSING, "normalize": {"mean": [0.41], "std": [0.2]}})
    wrong = {**files, "model.pt": make_files(other, ExportRequest(("torchscript",)), samples)["model.pt"]}
    with pytest.raises(ExportError, match=r"model.pt does not answer as the model does: .*\n.*net was not written"):
        write_bundle(tmp_path / "net", wrong)
    assert list(tmp_path.iterdir()) == []


def test_a_stop_between_two_formats(source, samples):
    calls = []
    with pytest.raises(Interrupted, match="stopped before the model was exported as safetensors"):
        make_files(
            source,
            ExportRequest(("torchscript", "safetensors")),
            samples,
            should_stop=lambda: calls.append(None) or len(calls) == 2,
        )


@pytest.mark.slow
def test_a_program_that_does_not_load_is_not_published(files, tmp_path):
    with pytest.raises(ExportError, match="the program fails in a fresh process: "):
        write_bundle(tmp_path / "net", {**files, "model.pt": files["model.pt"][:1000]})
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_bundle(tmp_path, copied):
    with pytest.raises(UserError, match="no such folder; give the folder of a bundle"):
        verify_bundle(tmp_path / "nothing")
    (copied / "SHA256SUMS").unlink()
    with pytest.raises(UserError, match=r"not a whole bundle \(.*SHA256SUMS is missing\); export it again"):
        verify_bundle(copied)


def test_names_that_are_taken(tmp_path):
    assert free_name(tmp_path / "a") == tmp_path / "a"
    (tmp_path / "a").mkdir()
    (tmp_path / "a_2").write_text("")
    assert free_name(tmp_path / "a") == tmp_path / "a_3"
    with pytest.raises(UserError, match="a exists already; give another --output, or delete it"):
        check_target(tmp_path / "a")


def test_a_full_disk_leaves_nothing(files, tmp_path, monkeypatch):
    def full(descriptor, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, "ops", dataclasses.replace(durable.ops, write=full))
    with pytest.raises(durable.WriteError, match="the disk is full"):
        write_bundle(tmp_path / "net", files)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
@pytest.mark.slow
def test_killed_at_any_point_no_bundle_looks_whole(files, written, tmp_path):
    target = tmp_path / "net"
    for number in range(200):
        status = export_and_die(target, files, written[1], at=number)
        if status == 0:
            break
        assert status == 9
        if target.exists():  # killed after the rename: then it is whole
            assert (target / "SHA256SUMS").is_file()
            break
        left = list(tmp_path.iterdir())
        assert all(path.name.startswith(".net.") and path.name.endswith(".tmp") for path in left)
        for path in left:
            with pytest.raises(UserError, match="not a whole bundle"):
                verify_bundle(path)
        durable.clear_stale(tmp_path)
        assert list(tmp_path.iterdir()) == []
    assert number > 30  # nine files: open, write, fsync, close, rename, fsync of the folder
    assert {path.name for path in target.iterdir()} == {path.name for path in written[0].iterdir()}


def export_and_die(target, files, report, *, at):
    """Export in a forked process that ends, as by a kill, before file operation number ``at``; its exit status."""
    pid = os.fork()
    if pid == 0:
        count = iter(range(at))

        def dying(operation):
            def call(*arguments):
                if next(count, None) is None:
                    os._exit(9)
                return operation(*arguments)

            return call

        try:
            fields = {field.name: dying(getattr(durable.ops, field.name)) for field in dataclasses.fields(durable.ops)}
            durable.ops = durable.FileOps(**fields)
            os.rename = dying(os.rename)
            bundles.check_programs = lambda folder, **_: report  # it would take a second each time
            write_bundle(target, files)
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_the_check_runs_where_trainkit_cannot_be_imported():
    code = (
        "import runpy, sys; sys.argv[1:] = []\n"
        f"try: runpy.run_path({str(RUNNER)!r}, run_name='__main__')\n"
        "except SystemExit: pass\n"
        "try: import trainkit\n"
        "except ImportError: print('no trainkit')"
    )
    env = {**os.environ, "PYTHONPATH": str(RUNNER.parents[2])}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "no trainkit\n"
