"""What takes processes of its own: this machine, a checkpoint, the tests, other devices, signals, kills."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import platform
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import trainkit
from gpu.findings import Findings
from gpu.states import compare_states, differences
from gpu.workplace import ADAMW, CNN, MLP_NORM, SGD, Run, Workplace, blobs
from trainkit.checkpoints import load_checkpoint

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (
    "numpy scikit-learn matplotlib jinja2 safetensors pydantic typer rich pyyaml pillow torchvision onnx onnxruntime "
    "onnxscript tensorboard lightning pytest hypothesis triton"
)


def environment(found: Findings, place: Workplace) -> None:
    """Versions, the device, and every module of trainkit imported."""
    found["python"], found["torch"] = platform.python_version(), torch.__version__
    found["cuda"], found["cudnn"] = torch.version.cuda, torch.backends.cudnn.version()
    found["cores"], found["threads"] = os.cpu_count(), torch.get_num_threads()
    found["tf32"] = {"cudnn": torch.backends.cudnn.allow_tf32, "matmul": torch.backends.cuda.matmul.allow_tf32}
    if torch.cuda.is_available():
        found["card"] = torch.cuda.get_device_name(0)
        found["capability"] = torch.cuda.get_device_capability(0)
        found["memory MB, free and in all"] = [size >> 20 for size in torch.cuda.mem_get_info(0)]
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
            found["driver"] = subprocess.run(query, capture_output=True, text=True, timeout=10).stdout.strip()
    elif place.cuda:
        found.fault("PyTorch finds no CUDA device here; --device cpu tries this program without one")
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 11):
        found.fault(f"torch {torch.__version__}; trainkit needs 2.11 or newer")
    versions = {}
    for name in PACKAGES.split():
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    found["packages"] = versions
    source = Path(trainkit.__file__).parents[1]
    modules = [path.relative_to(source).with_suffix("") for path in sorted((source / "trainkit").rglob("*.py"))]
    for module in modules:
        # fork_server makes its process the leader of a session.
        if module.name not in ("__init__", "__main__", "fork_server") and "templates" not in module.parts:
            with found.case(f"import {module}"):
                importlib.import_module(".".join(module.parts))
    found["modules"] = len(modules)


def checkpoint(found: Findings, place: Workplace) -> None:
    """A run's files are saved, verified and loaded; and its command line: check, train, eval, predict, export."""
    table = {"type": "table", "path": str(place.folder / "table.csv"), "target": "kind"}
    config = place.config("table", dataset=table, checkpoint={"every": "7st", "keep_last": 3}, logging={"plots": True})
    done = place.command("train", config, "--run-dir", "checkpoint", "--quiet", "--json")
    found.expect(done.code == 0, "train", str(done))
    run = next((place.folder / "checkpoint").iterdir())
    for path in Run(run).states().values():
        # What PyTorch itself reads is what trainkit reads.
        plain = torch.load(path, map_location="cpu", weights_only=True)
        different = differences(plain["model"], load_checkpoint(path)["model"])
        found.expect(not different, f"read by torch.load: {path.name[-24:]}", different or "equal")
    commands: dict[str, tuple[Any, ...]] = {
        "ckpt verify": ("ckpt", "verify", run),
        "check": ("check", config, "--json"),
        "eval": ("eval", run, "--json", "-q"),
        "predict": ("predict", run, place.folder / "table.csv", "-o", "out.csv", "-q"),
        "resume for longer": ("resume", run, "--set", "training.epochs=3", "-q"),
        "export --torchscript": ("export", run, "--torchscript", "-q", "--output", "ts"),
        "export --all": ("export", run, "--all", "-q", "--output", "bundle"),
        "bench": ("bench", config, "--single", "--seconds", "0.5", "--json"),
    }
    for name, words in list(commands.items())[: 3 if place.quick else None]:
        if name == "export --all" and not importlib.util.find_spec("onnxscript"):
            continue
        done = place.command(*words, limit=60)
        found.expect(done.code == 0, name, str(done))


def gpu_tests(found: Findings, place: Workplace) -> None:
    """The project's tests that are marked ``gpu``, on this torch; without CUDA all of them are skipped."""
    if not importlib.util.find_spec("pytest") or not importlib.util.find_spec("hypothesis"):
        found.skip("pytest or hypothesis is not installed")
        return
    paths = [str(ROOT / "tests" / "support"), os.environ.get("PYTHONPATH", "")]
    env = {"PYTHONPATH": os.pathsep.join(path for path in paths if path), "PYTHONDONTWRITEBYTECODE": "1"}
    options = ["-q", "-rfEs", "-p", "no:cacheprovider", "-o", "addopts=", "--tb=short", "--import-mode=importlib"]
    marked = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if "pytest.mark.gpu" in path.read_text()]
    with found.case("marked gpu"):
        done = place.python("-m", "pytest", *options, "-m", "gpu", *marked, cwd=ROOT, limit=150, env=env)
        lines = done.out.strip().splitlines()
        said = [line[:400] for line in lines if line.startswith(("FAILED", "ERROR", "SKIPPED", "E  "))]
        result = {"exit": done.code, "end": lines[-1][:200] if lines else done.err[-300:], "said": said[:20]}
        found.expect(done.code == 0, "marked gpu", result)
        if place.cuda and any("SKIPPED" in line and "CUDA" in line for line in said):
            found.fault("tests marked gpu were skipped beside a GPU")


def crossings(found: Findings, place: Workplace) -> None:
    """CPU to CUDA and back, another memory layout at a resume, and a checkpoint read where there is no GPU."""
    saving = ("checkpoint.every=1", "checkpoint.keep_last=9")
    table, images = {"dataset": blobs(), "model": MLP_NORM}, {"dataset": place.images(), "model": CNN}
    for name, keys in {"mlp": table, "cnn": images}.items():
        config = place.config(f"cross_{name}", **keys, optimizer=ADAMW, batch_size=50, precision="fp32")
        for start, end in (("cpu", place.device), (place.device, "cpu")):
            with found.case(f"{name}, {start} to {end}"):
                first = place.train(config, f"device={start}", *saving)
                file = first.states()[min(first.states())]
                more = place.train(config, f"device={end}", resume=file)
                a, b = (run.epochs()[-1]["train_loss"] for run in (first, more))
                near = abs(a - b) <= 0.1 * abs(a) + 0.01
                found.expect(near, f"{name}, {start} to {end}", f"train_loss {a:.6f} and {b:.6f}")
    for optimizer in (SGD, ADAMW, {"type": "adam", "amsgrad": True})[: 1 if place.quick else None]:
        with found.case(f"channels_last toggled, {optimizer['type']}"):
            toggled_layout(found, place, optimizer)
    with found.case("without a GPU"):
        run = place.train(place.config("cross_read", **images, batch_size=50)).folder
        hidden = {"CUDA_VISIBLE_DEVICES": ""}
        picture = place.folder / "rgb32" / "class0" / "0.png"
        readers = [("ckpt", "verify", run), ("predict", run, picture, "-q")]
        for words in [*readers, ("eval", run, "--device", "cpu", "--no-plots", "-q")]:
            done = place.command(*words, env=hidden)
            found.expect(done.code == 0, f"without a GPU: {words[0]}", str(done))


def toggled_layout(found: Findings, place: Workplace, optimizer: Any) -> None:
    """A resume in another memory layout changes the weights no more than the layout itself does."""
    still = {"dataset": place.images(), "model": {**CNN, "dropout": 0.0}, "precision": "fp32"}
    config = place.config("toggle", **still, optimizer=optimizer, batch_size=50, epochs=3)
    on, off = "training.channels_last=true", "training.channels_last=false"
    first = place.train(config, on, "checkpoint.every=1", "checkpoint.keep_last=9")
    file = first.states()[min(first.states())]
    kept = place.train(config, on, resume=file).state()["model"]
    others = [place.train(config, off, resume=file), place.train(config, off)]
    away, noise = (
        max(
            (kept[key].double() - run.state()["model"][key].double()).abs().max().item()
            for key in kept
            if "weight" in key
        )
        for run in others
    )
    result = f"weights differ by {away:.1e}; by {noise:.1e} in that layout from the start"
    found.expect(away <= 20 * noise + 1e-5, f"channels_last toggled, {optimizer['type']}", result)


def stop_signal(found: Findings, place: Workplace) -> None:
    """SIGTERM in the middle of an epoch: exit code 143; the resumed run ends as one that was left alone, bitwise."""
    rows, batch_size = (1000, 4) if place.quick else (100_000, 16)
    saving = {"logging": {"every": 20}, "checkpoint": {"every": 1}}
    config = place.config("stop", dataset=blobs(rows), model=MLP_NORM, batch_size=batch_size, epochs=1, **saving)
    alone = place.command("train", config, "--quiet", "--run-dir", "alone")
    found.expect(alone.code == 0, "left alone", str(alone))
    command = [sys.executable, "-m", "trainkit", "train", str(config), "--quiet", "--run-dir", "stopped"]
    child = subprocess.Popen(command, cwd=place.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 40
    while time.monotonic() < end and child.poll() is None and not steps_are_logged(place.folder / "stopped"):
        time.sleep(0.01)
    child.send_signal(signal.SIGTERM)
    _, said = child.communicate(timeout=40)
    found.expect(child.returncode == 143, "exit code", f"{child.returncode}: {said.strip()[-200:]}")
    run = Run(next((place.folder / "stopped").iterdir()))
    found["stopped at"] = max(run.states(), default=None)
    done = place.command("resume", run.folder, "-q")
    found.expect(done.code == 0, "resume", str(done))
    whole = Run(next((place.folder / "alone").iterdir()))
    result = compare_states(whole.state(), run.state())
    found.expect(result == "equal", "against the run that was left alone", result)


def steps_are_logged(runs: Path) -> bool:
    return any('"type": "step"' in path.read_text() for path in runs.glob("*/metrics.jsonl"))


def selftest(found: Findings, place: Workplace) -> None:
    """`trainkit selftest resume`: runs that are killed (SIGKILL) end as one that is not."""
    kills = "1" if place.quick else "3"
    words = ["selftest", "resume", "--kills", kills, "--seed", "1", "--json", "--set", f"device={place.device}"]
    done = place.command(*words, limit=220)  # it was not done after 115 s on an H200 whose host is slow
    found.expect(done.code == 0, "selftest resume", str(done))
    found["said"] = done.out.strip()[-300:]
