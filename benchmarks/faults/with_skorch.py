"""skorch: a PyTorch module as an estimator of scikit-learn."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common
import skorch
import torch
from common import Net, silent
from skorch.callbacks import Checkpoint, LoadInitState, TrainEndCheckpoint
from torch import nn


class SayFirst(skorch.callbacks.Callback):
    def on_batch_end(self, net: Any, training: bool = True, **more: Any) -> None:
        if training:
            common.first_batch()


def net_of(kind: type = skorch.NeuralNetClassifier, callbacks: Sequence[Any] = (), **more: Any) -> Any:
    usual = {"criterion": nn.CrossEntropyLoss, "optimizer": torch.optim.Adam, "lr": 0.01, "max_epochs": 3}
    return kind(Net, callbacks=[SayFirst(), *callbacks], batch_size=64, verbose=0, **{**usual, **more})


def misspelt_key() -> None:
    net_of(optimizer__wieght_decay=0.1).fit(*common.TRAIN)


def misspelt_metric() -> None:
    net_of(callbacks=[Checkpoint(monitor="valid_acuracy_best", dirname="saved")]).fit(*common.TRAIN)


def wrong_shape() -> None:
    net_of(module__inputs=63).fit(*common.TRAIN)


def softmax_twice() -> None:
    net = net_of(module__last=nn.Softmax(1)).fit(*common.TRAIN)
    silent(f"trained; the loss of {net.history[-1, 'train_loss']:.2f} cannot come below 1.46")


def label_out_of_range() -> None:
    net_of().fit(*common.label_out_of_range())


def nan_target() -> None:
    regressor = net_of(skorch.NeuralNetRegressor, module__outputs=1, criterion=nn.MSELoss, train_split=None)
    common.say_whether_nan(regressor.fit(*common.nan_target()).module_[3].weight.detach())


def nan_input() -> None:
    common.say_whether_nan(net_of(train_split=None).fit(*common.nan_input()).module_[3].weight.detach())


def high_learning_rate() -> None:
    net = net_of(optimizer=torch.optim.SGD, lr=1e20, train_split=None).fit(*common.TRAIN)
    common.say_whether_nan(net.module_[3].weight.detach())


def flipped_bit() -> None:
    net = net_of().fit(*common.TRAIN)
    net.save_params(f_params="m.pt")
    common.flip_a_bit("m.pt", net.module_[0].weight.detach().numpy())
    net.load_params(f_params="m.pt")
    silent("the wrong weights were loaded")


def payload() -> None:
    """Saved as its documentation shows first: the whole net, by pickle."""
    net = net_of().fit(*common.TRAIN)
    net.note = common.Payload()
    Path("net.pkl").write_bytes(pickle.dumps(net))
    pickle.loads(Path("net.pkl").read_bytes())
    common.say_whether_it_ran()


def killed_and_resumed() -> None:
    def train(epochs: int, *, load: bool = False) -> dict[str, Any]:
        torch.manual_seed(1)
        end = TrainEndCheckpoint(dirname="saved")
        callbacks = [end, LoadInitState(end)] if load else [end]
        net = net_of(max_epochs=epochs, iterator_train__shuffle=True, callbacks=callbacks)
        return net.fit(*common.TRAIN).module_.state_dict()

    whole = train(4)
    shutil.rmtree("saved")
    train(2)
    silent(common.whether_the_same(whole, train(2, load=True)))


common.run(globals())
