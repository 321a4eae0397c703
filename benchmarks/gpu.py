"""Seconds an epoch on a GPU: trainkit, the loop written by hand with and without CUDA graphs, Lightning if installed.

    PYTHONPATH=src TRAINKIT_TEST_DATA=... python benchmarks/gpu.py [--repeats 3] [--workloads NAME ...] [--out FILE]
    PYTHONPATH=src python benchmarks/gpu.py --device cpu --quick        # try it where there is no GPU: no figures

A Markdown table on stdout, everything as JSON in FILE. Each repeat runs every contender once, in a process of its own,
in turn; the first epoch warms up and does not count. CIFAR-size and 224-px pictures are made here; where
TRAINKIT_TEST_DATA does not name MNIST, gray pictures of 32 px take its place.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from images import make_pictures

HERE = Path(__file__).parent
CONTENDERS = ("trainkit", "hand-written", "hand-written, CUDA graph", "lightning")
BLOCK = {"kernel_size": 3, "padding": 1}
MODELS: dict[str, Any] = {
    "mlp": {"type": "mlp", "hidden_sizes": [128, 64]},
    "cnn": {
        "type": "cnn",
        "norm": "batch",
        "blocks": [{"channels": channels, "kernel_size": 5, "pool": 2} for channels in (16, 32)],
    },
    # Depth and widths of the ResNet-20 of He et al. 2015 (section 4.2), with a shortcut around each convolution.
    "resnet": {
        "type": "cnn",
        "norm": "batch",
        "global_pool": "avg",
        "blocks": [
            {"channels": 16, **BLOCK},
            *({"channels": 16, "residual": True, **BLOCK} for _ in range(6)),
            {"channels": 32, "stride": 2, "residual": True, **BLOCK},
            *({"channels": 32, "residual": True, **BLOCK} for _ in range(5)),
            {"channels": 64, "stride": 2, "residual": True, **BLOCK},
            *({"channels": 64, "residual": True, **BLOCK} for _ in range(5)),
        ],
    },
    "pictures": {
        "type": "cnn",
        "norm": "batch",
        "global_pool": "avg",
        "blocks": [
            {"channels": 32, "stride": 2, **BLOCK},
            {"channels": 64, "stride": 2, **BLOCK},
            {"channels": 128, "stride": 2, **BLOCK},
            {"channels": 256, "stride": 2, **BLOCK},
        ],
    },
}
# By workload: model, pictures (None is MNIST), batch size.
WORKLOADS: dict[str, tuple[str, str | None, int]] = {
    "MNIST MLP": ("mlp", None, 64),
    "MNIST CNN": ("cnn", None, 64),
    "CIFAR-size ResNet": ("resnet", "small", 128),
    "pictures of 224 px, from the map": ("pictures", "large", 64),
    "pictures of 224 px, from workers": ("pictures", "large", 64),
}


def has_mnist() -> bool:
    given = os.environ.get("TRAINKIT_TEST_DATA")
    return given is not None and (Path(given) / "MNIST").is_dir()


def write_config(work: Path, workload: str, *, device: str, quick: bool) -> Path:
    model, pictures, batch_size = WORKLOADS[workload]
    normalize: dict[str, Any] = {"type": "normalize", "mean": [0.5] * 3, "std": [0.25] * 3}
    if pictures is None:
        normalize |= {"mean": [0.1307], "std": [0.3081]}
    if pictures is None and has_mnist() and not quick:
        dataset = {"type": "mnist", "root": os.environ["TRAINKIT_TEST_DATA"], "download": False}
    else:
        dataset = {"type": "image_folder", "root": str(work / (pictures or "small")), "test_fraction": 0.0}
        dataset["color"] = "gray" if pictures is None else "rgb"
    training: dict[str, Any] = {"batch_size": batch_size}
    if workload.endswith("workers"):
        training["num_workers"] = min(8, max(1, (os.cpu_count() or 1) - 1))
    if workload.endswith("map"):
        training["residency"] = "map"
    config = {
        "seed": 0,
        "device": device,
        "dataset": {**dataset, "val_fraction": 0.0},
        "transforms": [normalize] if pictures is None else ["random_horizontal_flip", normalize],
        "model": MODELS[model],
        "optimizer": {"type": "sgd", "lr": 0.02, "momentum": 0.9},
        "training": training,
        "checkpoint": {"monitor": "train_loss"},
        "logging": {"plots": False},
    }
    path = work / f"{workload.replace(' ', '_')}.yaml"
    path.write_text(json.dumps(config))
    return path


def make_data(work: Path, *, quick: bool) -> None:
    for name, size, count in (("small", 32, 160 if quick else 20_000), ("large", 224, 80 if quick else 4_000)):
        (work / name).mkdir()
        make_pictures(work / name, count, sides=(size, size))


def run(contender: str, workload: str, config: Path, epochs: int, *, busy: bool = False) -> dict[str, Any] | None:
    """What a contender printed; None, with the reason on stderr, where it failed."""
    command = [sys.executable, str(HERE / "gpu_contenders.py"), contender, workload, str(config), str(epochs)]
    cache = {"TRAINKIT_CACHE": str(config.parent / "cache")}
    done = subprocess.run(
        [*command, *(["--busy"] if busy else [])], capture_output=True, text=True, env={**os.environ, **cache}
    )
    if done.returncode != 0:
        print(f"{workload}, {contender}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return {**found, "said": done.stderr.strip().splitlines()[-3:] if contender == "trainkit" else []}


def measure(workload: str, config: Path, names: list[str], *, repeats: int, epochs: int, cuda: bool) -> dict[str, Any]:
    """Seconds of an epoch of each contender (the median of a process, for each repeat) and how busy the GPU was."""
    found: dict[str, Any] = {name: {"seconds": [], "busy": None, "kernels": None, "said": []} for name in names}
    for repeat in range(repeats):
        for name in names if repeat % 2 == 0 else reversed(names):
            result = run(name, workload, config, epochs)
            if result is not None:
                found[name]["seconds"].append(statistics.median(result["seconds"][1:]))
                found[name]["said"] = result["said"]
            print(f"  {workload}, {name}: {found[name]['seconds'][-1:]}", file=sys.stderr, flush=True)
    for name in names if cuda else ():
        result = run(name, workload, config, 2, busy=True)
        if result is not None:
            found[name] |= {"busy": result["busy"], "kernels": result["kernels"]}
    return found


def rows(workload: str, found: dict[str, Any]) -> list[str]:
    """Lines of the table."""
    base, lines = found.get("trainkit", {}).get("seconds") or [float("nan")], []
    for name, values in found.items():
        seconds = values["seconds"]
        if not seconds:
            lines.append(f"| {workload} | {name} | failed | | 0 | | | |")
            continue
        middle, ratio = statistics.median(seconds), statistics.median(seconds) / statistics.median(base)
        busy = "-" if values["busy"] is None else f"{values['busy']:.0%}"
        kernels = "-" if values["kernels"] is None else f"{values['kernels']:.0f}"
        spread = f"{min(seconds):.3f} - {max(seconds):.3f}"
        lines.append(
            f"| {workload} | {name} | {middle:.3f} | {spread} | {len(seconds)} | {ratio:.2f} | {busy} | {kernels} |"
        )
    return lines


def machine(device: str, *, quick: bool) -> dict[str, Any]:
    import torch

    facts = {"torch": torch.__version__, "python": platform.python_version(), "cores": os.cpu_count()}
    facts["MNIST"] = "real" if has_mnist() and not quick else "replaced by gray pictures of 32 px"
    if device == "cuda":
        facts |= {"card": torch.cuda.get_device_name(0), "cuda": torch.version.cuda}
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--workloads", nargs="+", default=list(WORKLOADS), choices=list(WORKLOADS))
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=list(CONTENDERS))
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--quick", action="store_true", help="little data and one repeat, to try this program")
    parser.add_argument("--out", type=Path, default=Path("gpu_benchmark.json"))
    options = parser.parse_args()
    repeats, epochs = (1, 2) if options.quick else (options.repeats, options.epochs)
    names = [name for name in options.contenders if name != "lightning" or find_spec("lightning")]
    names = [name for name in names if options.device == "cuda" or "CUDA" not in name]
    facts = machine(options.device, quick=options.quick)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="gpu-benchmark-") as folder:
        work = Path(folder)
        make_data(work, quick=options.quick)
        for workload in options.workloads:
            config = write_config(work, workload, device=options.device, quick=options.quick)
            results[workload] = measure(
                workload, config, names, repeats=repeats, epochs=epochs, cuda=options.device == "cuda"
            )
            options.out.write_text(json.dumps({"machine": facts, "results": results}, indent=1))
    print(", ".join(f"{key} {value}" for key, value in facts.items()))
    print("\n| | loop | s | least - most | n | times trainkit | GPU busy | kernels a step |")
    print("|---|---|---|---|---|---|---|---|")
    print("\n".join(line for workload, found in results.items() for line in rows(workload, found)))


if __name__ == "__main__":
    main()
