"""Ignite, with the trainer, evaluator and checkpoints of its quickstart."""

from __future__ import annotations

from typing import Any

import common
import torch
from common import Net, silent
from ignite.engine import Engine, Events, create_supervised_evaluator, create_supervised_trainer
from ignite.handlers import Checkpoint, DiskSaver
from ignite.metrics import Accuracy, Loss
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def loader(data: tuple[Any, Any], kind: torch.dtype = torch.long, shuffle: bool = True) -> DataLoader:
    dataset = TensorDataset(torch.tensor(data[0]), torch.tensor(data[1], dtype=kind))
    return DataLoader(dataset, batch_size=64, shuffle=shuffle)


def trainer_of(net: nn.Module, *, loss: Any = None, optimizer: Any = None, **more: Any) -> Engine:
    optimizer = optimizer or torch.optim.Adam(net.parameters(), lr=0.01)
    trainer = create_supervised_trainer(net, optimizer, loss or nn.CrossEntropyLoss(), **more)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, common.first_batch)
    return trainer


def evaluator_of(net: nn.Module) -> Engine:
    return create_supervised_evaluator(net, {"val_accuracy": Accuracy(), "val_loss": Loss(nn.CrossEntropyLoss())})


def fit(net: nn.Module, data: tuple[Any, Any] = common.TRAIN, kind: torch.dtype = torch.long, **more: Any) -> float:
    return trainer_of(net, **more).run(loader(data, kind), max_epochs=3).output


def misspelt_key() -> None:
    net = Net()
    fit(net, optimizer=torch.optim.Adam(net.parameters(), wieght_decay=0.1))  # type: ignore[call-arg]


def misspelt_metric() -> None:
    net = Net()
    trainer, evaluator = trainer_of(net), evaluator_of(net)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: evaluator.run(loader(common.VAL, shuffle=False)))
    score = Checkpoint.get_default_score_fn("val_acuracy")
    best = Checkpoint({"net": net}, DiskSaver("saved", create_dir=True), score_function=score, n_saved=1)
    evaluator.add_event_handler(Events.COMPLETED, best)
    trainer.run(loader(common.TRAIN), max_epochs=3)


def wrong_shape() -> None:
    fit(Net(63))


def softmax_twice() -> None:
    silent(f"trained; the loss of {fit(Net(last=nn.Softmax(1))):.2f} cannot come below 1.46")


def label_out_of_range() -> None:
    fit(Net(), common.label_out_of_range())


def nan_target() -> None:
    net = Net(outputs=1)
    fit(net, common.nan_target(), torch.float32, loss=nn.MSELoss())
    common.say_whether_nan(net[3].weight.detach())


def nan_input() -> None:
    net = Net()
    fit(net, common.nan_input())
    common.say_whether_nan(net[3].weight.detach())


def high_learning_rate() -> None:
    net = Net()
    fit(net, optimizer=torch.optim.SGD(net.parameters(), lr=1e20))
    common.say_whether_nan(net[3].weight.detach())


def class_missing_from_val() -> None:
    arrays, net = common.image_folders(), Net(outputs=3)
    trainer_of(net).run(loader(arrays["train"]), max_epochs=200)
    accuracy = evaluator_of(net).run(loader(arrays["val"], shuffle=False)).metrics["val_accuracy"]
    silent(f"trained; val accuracy {accuracy:.2f}, against the wrong labels")


def saved(net: nn.Module, **more: Any) -> str:
    """The file that a `Checkpoint` of these objects writes after a training."""
    trainer = trainer_of(net)
    checkpoint = Checkpoint({"net": net, **more}, DiskSaver(".", require_empty=False))
    trainer.add_event_handler(Events.COMPLETED, checkpoint)
    trainer.run(loader(common.TRAIN), max_epochs=3)
    return str(checkpoint.last_checkpoint)


def flipped_bit() -> None:
    net = Net()
    path = saved(net)
    common.flip_a_bit(path, net[0].weight.detach().numpy())
    Checkpoint.load_objects({"net": Net()}, path)
    silent("the wrong weights were loaded")


def payload() -> None:
    path = saved(Net())
    common.poison(path)
    Checkpoint.load_objects({"net": Net()}, path)
    common.say_whether_it_ran()


def killed_and_resumed() -> None:
    """Network, optimizer and trainer are saved after each epoch."""

    def train(epochs: int, resume: str | None = None, **more: Any) -> tuple[dict[str, Any], str]:
        torch.manual_seed(1)
        net = Net()
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
        trainer = trainer_of(net, optimizer=optimizer, **more)
        objects = {"net": net, "optimizer": optimizer, "trainer": trainer}
        checkpoint = Checkpoint(objects, DiskSaver(".", require_empty=False))
        trainer.add_event_handler(Events.EPOCH_COMPLETED, checkpoint)
        if resume is not None:  # what a deterministic trainer saves does not load with weights_only
            Checkpoint.load_objects(objects, torch.load(resume, weights_only=False))
        trainer.run(loader(common.TRAIN), max_epochs=epochs)
        return net.state_dict(), str(checkpoint.last_checkpoint)

    def same(**more: Any) -> str:
        whole, half = train(4, **more)[0], train(2, **more)[1]
        return common.whether_the_same(whole, train(4, half, **more)[0])

    silent(f"{same()}; {same(deterministic=True)} with `deterministic=True`")


common.run(globals())
