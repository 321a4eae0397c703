"""What predicting costs beyond decoding: small PNGs through a trained network into a CSV file, against decoding alone.

    TRAINKIT_TEST_DATA=... python benchmarks/predict.py [--images 100000] [--models mlp cnn] [--repeats 3]

Each measurement is a process of its own, imports not counted; the two alternate. For the CNN, whose forward pass is
work of its own, the forward pass over the decoded images is measured too. Memory is the peak above ``import torch``.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MODELS = {
    "mlp": "{type: mlp, hidden_sizes: [128, 64]}",
    "cnn": "{type: cnn, norm: batch, blocks: [{channels: 16, kernel_size: 5, pool: 2}, "
    "{channels: 32, kernel_size: 5, pool: 2}]}",
}


def make_pictures(folder: Path, count: int, data: str) -> None:
    """MNIST's training images, again and again, as PNG files."""
    from PIL import Image
    from torchvision.datasets import MNIST

    images = MNIST(data).data.numpy()
    folder.mkdir()
    for index in range(count):
        Image.fromarray(images[index % len(images)]).save(folder / f"{index:06d}.png")


def train_model(kind: str, folder: Path, data: str) -> Path:
    from trainkit.config import load_config
    from trainkit.workflows.train.run import train

    config = folder / f"{kind}.yaml"
    config.write_text(
        f"dataset: {{type: mnist, root: {data}, download: false}}\n"
        "transforms: [{type: normalize, mean: [0.1307], std: [0.3081]}]\n"
        f"model: {MODELS[kind]}\ntraining: {{epochs: 1}}\nlogging: {{plots: false}}\n"
    )
    return train(load_config(config), runs_dir=folder / "runs").best_checkpoint


def measure(what: str, checkpoint: Path, pictures: Path) -> dict[str, float]:
    """Seconds of one of: decoding, the forward pass alone, predicting into a file."""
    import torch

    after_torch = peak_megabytes()
    from trainkit.cli.predict import _columns, write_predictions
    from trainkit.workflows.predict.inputs import find_inputs, read_chunks
    from trainkit.workflows.predict.run import make_input_spec, open_model, predict

    model = open_model(checkpoint)
    count = 0
    started = time.perf_counter()
    if what == "predict":
        gc.set_threshold(10_000)  # as the command does
        output = pictures.parent / "out.csv"
        with write_predictions(output, columns=_columns(model, 3), json=False) as show:
            for prediction in predict(model, [pictures]):
                show(prediction)
                count += 1
    elif what == "decode":
        count = sum(
            len(chunk.names) for chunk in read_chunks(find_inputs([pictures], kind="image"), make_input_spec(model))
        )
    else:
        rows = torch.zeros(model.batch_size, 1, 28, 28, dtype=torch.uint8)
        total = len(os.listdir(pictures))
        started = time.perf_counter()
        while count < total:
            model.predict(rows)
            count += len(rows)
    return {"seconds": time.perf_counter() - started, "images": count, "megabytes": peak_megabytes() - after_torch}


def peak_megabytes() -> float:
    """Of this process alone: what getrusage says may be its parent's, from before the program was started."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def child(what: str, checkpoint: Path, pictures: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", what, str(checkpoint), str(pictures)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", nargs=3)
    arguments = parser.parse_args()
    if arguments.child:
        what, checkpoint, pictures = arguments.child
        print(json.dumps(measure(what, Path(checkpoint), Path(pictures))))
        return
    data = os.environ["TRAINKIT_TEST_DATA"]
    print(
        "| model | images | decode, s | forward, s | predict, s | predict / decode | / (decode + forward) | peak, MB |"
    )
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as work:
        checkpoints = {kind: train_model(kind, Path(work), data) for kind in arguments.models}
        for images in arguments.images:
            pictures = Path(work) / str(images)
            make_pictures(pictures, images, data)
            for kind, checkpoint in checkpoints.items():
                report(kind, images, [one_round(checkpoint, pictures) for _ in range(arguments.repeats)])


def one_round(checkpoint: Path, pictures: Path) -> dict[str, dict[str, float]]:
    found = {what: child(what, checkpoint, pictures) for what in ("decode", "forward", "predict")}
    print({what: round(values["seconds"], 2) for what, values in found.items()}, file=sys.stderr, flush=True)
    return found


def report(kind: str, images: int, rounds: list[dict[str, dict[str, float]]]) -> None:
    seconds = {what: [found[what]["seconds"] for found in rounds] for what in rounds[0]}
    over_decode = [p / d for p, d in zip(seconds["predict"], seconds["decode"], strict=True)]
    both = [d + f for d, f in zip(seconds["decode"], seconds["forward"], strict=True)]
    over_both = [p / b for p, b in zip(seconds["predict"], both, strict=True)]
    cells = [spread(seconds[what]) for what in ("decode", "forward", "predict")]
    cells += [spread(over_decode), spread(over_both), spread([found["predict"]["megabytes"] for found in rounds], 0)]
    print(f"| {kind} | {images:,} | " + " | ".join(cells) + " |", flush=True)


def spread(values: list[float], digits: int = 2) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} - {max(values):.{digits}f})"


if __name__ == "__main__":
    main()
