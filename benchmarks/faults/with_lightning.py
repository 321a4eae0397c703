"""Lightning, as its documentation writes a module and a trainer."""

from __future__ import annotations

from typing import Any

import common
import lightning
import torch
from common import Net, silent
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


class Module(lightning.LightningModule):
    def __init__(self, net: nn.Module, loss: nn.Module | None = None) -> None:
        super().__init__()
        self.net, self.loss = net, loss or nn.CrossEntropyLoss()

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        value = self.loss(self.net(batch[0]), batch[1])
        self.log("train_loss", value)
        common.first_batch()
        return value

    def validation_step(self, batch: list[Tensor], index: int) -> None:
        scores = self.net(batch[0])
        self.log("val_loss", self.loss(scores, batch[1]))
        self.log("val_accuracy", (scores.argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)


def loader(data: tuple[Any, Any], kind: torch.dtype = torch.long, shuffle: bool = True) -> DataLoader:
    dataset = TensorDataset(torch.tensor(data[0]), torch.tensor(data[1], dtype=kind))
    return DataLoader(dataset, batch_size=64, shuffle=shuffle)


def trainer(epochs: int = 3, **more: Any) -> lightning.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    return lightning.Trainer(max_epochs=epochs, accelerator="cpu", **{"enable_checkpointing": False, **quiet, **more})


def fit(module: Module, data: tuple[Any, Any] = common.TRAIN, kind: torch.dtype = torch.long) -> lightning.Trainer:
    used = trainer()
    used.fit(module, loader(data, kind))
    return used


def misspelt_key() -> None:
    class Misspelt(Module):
        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), wieght_decay=0.1)  # type: ignore[call-arg]

    fit(Misspelt(Net()))


def misspelt_metric() -> None:
    best = lightning.pytorch.callbacks.ModelCheckpoint(dirpath="saved", monitor="val_acuracy")
    used = trainer(enable_checkpointing=True, callbacks=[best])
    used.fit(Module(Net()), loader(common.TRAIN), loader(common.VAL, shuffle=False))


def wrong_shape() -> None:
    fit(Module(Net(63)))


def softmax_twice() -> None:
    loss = float(fit(Module(Net(last=nn.Softmax(1)))).callback_metrics["train_loss"])
    silent(f"trained; the loss of {loss:.2f} cannot come below 1.46")


def label_out_of_range() -> None:
    fit(Module(Net()), common.label_out_of_range())


def nan_target() -> None:
    module = Module(Net(outputs=1), nn.MSELoss())
    fit(module, common.nan_target(), torch.float32)
    common.say_whether_nan(module.net[3].weight.detach())


def nan_input() -> None:
    module = Module(Net())
    fit(module, common.nan_input())
    common.say_whether_nan(module.net[3].weight.detach())


def high_learning_rate() -> None:
    class Fast(Module):
        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=1e20)

    module = Fast(Net())
    fit(module)
    common.say_whether_nan(module.net[3].weight.detach())


def class_missing_from_val() -> None:
    arrays, used = common.image_folders(), trainer(200)
    used.fit(Module(Net(outputs=3)), loader(arrays["train"]), loader(arrays["val"], shuffle=False))
    silent(f"trained; val accuracy {float(used.callback_metrics['val_accuracy']):.2f}, against the wrong labels")


def flipped_bit() -> None:
    module = Module(Net())
    fit(module).save_checkpoint("m.ckpt")
    common.flip_a_bit("m.ckpt", module.net[0].weight.detach().numpy())
    Module.load_from_checkpoint("m.ckpt", net=Net())
    silent("the wrong weights were loaded")


def payload() -> None:
    fit(Module(Net())).save_checkpoint("m.ckpt")
    common.poison("m.ckpt")
    Module.load_from_checkpoint("m.ckpt", net=Net())
    common.say_whether_it_ran()


def killed_and_resumed() -> None:
    def train(epochs: int, checkpoint: str | None = None) -> dict[str, Any]:
        lightning.seed_everything(1, verbose=False)
        module, used = Module(Net()), trainer(epochs)
        used.fit(module, loader(common.TRAIN), ckpt_path=checkpoint)
        used.save_checkpoint("m.ckpt")
        return module.state_dict()

    whole = train(4)
    train(2)
    silent(common.whether_the_same(whole, train(4, "m.ckpt")))


common.run(globals())
