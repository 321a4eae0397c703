"""One contender of the epoch benchmark, in its own process: prints the seconds of each epoch as JSON.

    python benchmarks/contenders.py CONTENDER mlp|cnn EPOCHS DATA

An epoch is 50,000 of the training images in batches of 64 and a validation on the other 10,000. All contenders train
the same network with SGD (lr 0.02, momentum 0.9); what they do to the data is what their own tutorials do.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BATCH, LR, MOMENTUM = 64, 0.02, 0.9
NUM_TRAINED = 50_000
MEAN, STD = 0.1307, 0.3081


def network(kind: str) -> Any:
    from torch import nn

    if kind == "mlp":
        sizes = (784, 128, 64)
        hidden = [layer for i, o in itertools.pairwise(sizes) for layer in (nn.Linear(i, o), nn.ReLU())]
        return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(64, 10))

    def block(inputs: int, outputs: int) -> list[Any]:
        conv = nn.Conv2d(inputs, outputs, 5, padding="same")
        return [conv, nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]

    return nn.Sequential(*block(1, 16), *block(16, 32), nn.Flatten(), nn.Linear(32 * 49, 10))


def tensors(data: Path) -> tuple[Any, Any, Any, Any]:
    import torch
    from torchvision.datasets import MNIST

    part = MNIST(data)
    images = part.data.unsqueeze(1).to(torch.float32).div_(255).sub_(MEAN).div_(STD)
    return images[:NUM_TRAINED], part.targets[:NUM_TRAINED], images[NUM_TRAINED:], part.targets[NUM_TRAINED:]


def loaders(data: Path, workers: int) -> tuple[Any, Any]:
    from torch.utils.data import DataLoader, Subset
    from torchvision import transforms
    from torchvision.datasets import MNIST

    to_tensor = transforms.Compose([transforms.ToTensor(), transforms.Normalize((MEAN,), (STD,))])
    options: dict[str, Any] = {"num_workers": workers, "persistent_workers": workers > 0}
    part = MNIST(data, transform=to_tensor)
    trained, held_out = Subset(part, range(NUM_TRAINED)), Subset(part, range(NUM_TRAINED, len(part)))
    train = DataLoader(trained, batch_size=BATCH, shuffle=True, **options)
    return train, DataLoader(held_out, batch_size=1000, **options)


def timed(epoch: Callable[[], None], epochs: int) -> list[float]:
    seconds = []
    for _ in range(epochs):
        started = time.perf_counter()
        epoch()
        seconds.append(time.perf_counter() - started)
    return seconds


def hand_written(kind: str, epochs: int, data: Path, *, bf16: bool = False) -> list[float]:
    """Everything in memory and normalized beforehand, channels-last, the fused optimizer: the fastest plain loop."""
    import torch
    from torch.nn.functional import cross_entropy

    x, y, val_x, val_y = tensors(data)
    model = network(kind)
    if kind == "cnn":
        model = model.to(memory_format=torch.channels_last)
        x, val_x = (t.as_strided(t.shape, (784, 1, 28, 1)) for t in (x, val_x))
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM, fused=True)

    def cast() -> Any:
        return torch.autocast("cpu", dtype=torch.bfloat16) if bf16 else contextlib.nullcontext()

    def epoch() -> None:
        model.train()
        for chosen in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad(set_to_none=True)
            with cast():
                outputs = model(x[chosen])
            cross_entropy(outputs.float(), y[chosen]).backward()
            optimizer.step()
        model.eval()
        with torch.inference_mode(), cast():
            sum((model(a).argmax(1) == b).sum() for a, b in zip(val_x.split(128), val_y.split(128), strict=True))

    return timed(epoch, epochs)


def tutorial(kind: str, epochs: int, data: Path) -> list[float]:
    """The loop of PyTorch's own tutorial, with two data workers."""
    import torch
    from torch import nn

    train, val = loaders(data, 2)
    model, criterion = network(kind), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)

    def epoch() -> None:
        model.train()
        running = 0.0
        for x, y in train:
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            optimizer.step()
            running += loss.item()
        model.eval()
        with torch.no_grad():
            sum((model(x).argmax(1) == y).sum().item() for x, y in val)

    return timed(epoch, epochs)


def trainkit(kind: str, epochs: int, data: Path, *, precision: str = "auto") -> list[float]:
    """The command's own workflow: validation with all its metrics, the log, and a checkpoint after each epoch."""
    import trainkit as package
    from trainkit.config import load_config
    from trainkit.workflows.train.run import train

    if hasattr(package, "own_process"):  # as the command line does; earlier versions did it without being asked
        package.own_process()
    model = (
        "{type: mlp, hidden_sizes: [128, 64]}"
        if kind == "mlp"
        else "{type: cnn, norm: batch, blocks: [{channels: 16, kernel_size: 5, pool: 2}, "
        "{channels: 32, kernel_size: 5, pool: 2}]}"
    )
    text = f"""
dataset: {{type: mnist, root: {data}, download: false, val_fraction: {1 / 6}}}
transforms: [{{type: normalize, mean: [{MEAN}], std: [{STD}]}}]
model: {model}
optimizer: {{type: sgd, lr: {LR}, momentum: {MOMENTUM}}}
training: {{epochs: {epochs}, batch_size: {BATCH}, precision: {precision}}}
logging: {{plots: false}}
"""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(text)
        result = train(load_config(path), runs_dir=Path(folder) / "runs")
        records = [json.loads(line) for line in result.run.metrics.read_text().splitlines()]
    lines = [record for record in records if record["type"] == "epoch"]
    seconds = [line["train_seconds"] + line["validation_seconds"] + line["checkpoint_seconds"] for line in lines]
    return [after - before for before, after in zip([0.0, *seconds], seconds, strict=False)]


def lightning(kind: str, epochs: int, data: Path, *, barebones: bool = False) -> list[float]:
    import lightning as L
    import torch
    from torch.nn.functional import cross_entropy

    train, val = loaders(data, 2)
    seconds: list[float] = []

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = network(kind)

        def training_step(self, batch: Any, index: int) -> Any:
            loss = cross_entropy(self.model(batch[0]), batch[1])
            if not barebones:
                self.log("loss", loss)
            return loss

        def validation_step(self, batch: Any, index: int) -> None:
            correct = (self.model(batch[0]).argmax(1) == batch[1]).float().mean()
            if not barebones:
                self.log("accuracy", correct)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=LR, momentum=MOMENTUM)

        def on_train_epoch_start(self) -> None:
            seconds.append(time.perf_counter())

    options: dict[str, Any] = {"barebones": True} if barebones else {"enable_progress_bar": False, "logger": False}
    with tempfile.TemporaryDirectory() as folder:
        trainer = L.Trainer(max_epochs=epochs, accelerator="cpu", default_root_dir=folder, **options)
        trainer.fit(Module(), train, val)
    seconds.append(time.perf_counter())
    return [after - before for before, after in itertools.pairwise(seconds)]


def ignite(kind: str, epochs: int, data: Path) -> list[float]:
    import torch
    from ignite.engine import Events, create_supervised_evaluator, create_supervised_trainer
    from ignite.metrics import Accuracy

    train, val = loaders(data, 2)
    model = network(kind)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)
    trainer = create_supervised_trainer(model, optimizer, torch.nn.CrossEntropyLoss())
    evaluator = create_supervised_evaluator(model, metrics={"accuracy": Accuracy()})
    seconds = [time.perf_counter()]

    @trainer.on(Events.EPOCH_COMPLETED)
    def validate(_: Any) -> None:
        evaluator.run(val)
        seconds.append(time.perf_counter())

    trainer.run(train, max_epochs=epochs)
    return [after - before for before, after in itertools.pairwise(seconds)]


def skorch(kind: str, epochs: int, data: Path) -> list[float]:
    import torch
    from skorch import NeuralNetClassifier
    from skorch.dataset import Dataset
    from skorch.helper import predefined_split

    x, y, val_x, val_y = tensors(data)
    net = NeuralNetClassifier(
        lambda: network(kind),
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=torch.optim.SGD,
        optimizer__momentum=MOMENTUM,
        lr=LR,
        batch_size=BATCH,
        iterator_valid__batch_size=1000,
        max_epochs=epochs,
        iterator_train__shuffle=True,
        train_split=predefined_split(Dataset(val_x.numpy(), val_y.numpy())),
        verbose=0,
    )
    net.fit(x.numpy(), y.numpy())
    return [row["dur"] for row in net.history]


def keras(kind: str, epochs: int, data: Path) -> list[float]:
    import os

    os.environ["KERAS_BACKEND"] = "torch"
    import keras as k

    x, y, val_x, val_y = (t.numpy() for t in tensors(data))
    layers = k.layers
    if kind == "mlp":
        dense = [layers.Dense(128, activation="relu"), layers.Dense(64, activation="relu")]
        model = k.Sequential([layers.Flatten(), *dense, layers.Dense(10)])
    else:
        x, val_x = x.transpose(0, 2, 3, 1), val_x.transpose(0, 2, 3, 1)

        def block(channels: int) -> list[Any]:
            conv = layers.Conv2D(channels, 5, padding="same")
            return [conv, layers.BatchNormalization(), layers.ReLU(), layers.MaxPool2D(2)]

        model = k.Sequential([*block(16), *block(32), layers.Flatten(), layers.Dense(10)])
    loss = k.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=k.optimizers.SGD(LR, momentum=MOMENTUM), loss=loss, metrics=["accuracy"])
    seconds = [time.perf_counter()]
    mark = k.callbacks.LambdaCallback(on_epoch_end=lambda *_: seconds.append(time.perf_counter()))
    validation = {"validation_data": (val_x, val_y), "validation_batch_size": 1000}
    model.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0, callbacks=[mark], **validation)
    return [after - before for before, after in itertools.pairwise(seconds)]


CONTENDERS: dict[str, Callable[[str, int, Path], list[float]]] = {
    "hand-written": hand_written,
    "hand-written bf16": lambda *a: hand_written(*a, bf16=True),
    "trainkit fp32": lambda *a: trainkit(*a, precision="fp32"),
    "trainkit auto": trainkit,
    "tutorial loop": tutorial,
    "lightning": lightning,
    "lightning barebones": lambda *a: lightning(*a, barebones=True),
    "ignite": ignite,
    "skorch": skorch,
    "keras": keras,
}

if __name__ == "__main__":
    name, kind, epochs, data = sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
    print(json.dumps(CONTENDERS[name](kind, epochs, data)))
