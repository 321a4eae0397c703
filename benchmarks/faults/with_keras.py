"""Keras on PyTorch, with compile and fit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common
import keras
from common import silent


class SayFirst(keras.callbacks.Callback):
    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        common.first_batch()


def net(inputs: int = 64, outputs: int = 10, last: str | None = "softmax") -> keras.Model:
    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(32, "relu"), keras.layers.Dropout(0.2)]
    return keras.Sequential([keras.layers.Input((inputs,)), *hidden, keras.layers.Dense(outputs, last)])


def fit(
    model: keras.Model,
    data: tuple[Any, Any] = common.TRAIN,
    *,
    loss: str = "sparse_categorical_crossentropy",
    optimizer: Any = None,
    metrics: Sequence[str] = ("accuracy",),
    epochs: int = 3,
    callbacks: Sequence[Any] = (),
    check: bool = True,
) -> dict[str, list[float]]:
    model.compile(optimizer or keras.optimizers.Adam(0.01), loss=loss, metrics=list(metrics))
    validation = common.VAL if check else None
    callbacks = [SayFirst(), *callbacks]
    return model.fit(
        *data, validation_data=validation, batch_size=64, epochs=epochs, verbose=0, callbacks=callbacks
    ).history


def misspelt_key() -> None:
    fit(net(), optimizer=keras.optimizers.Adam(0.01, wieght_decay=0.1))


def misspelt_metric() -> None:
    fit(net(), callbacks=[keras.callbacks.ModelCheckpoint("best.keras", monitor="val_acuracy", save_best_only=True)])
    silent("trained; the best model was " + ("saved" if Path("best.keras").exists() else "never saved"))


def wrong_shape() -> None:
    fit(net(63))


def softmax_twice() -> None:
    """Keras the other way round: its loss wants probabilities, and the model gives raw scores."""
    history = fit(net(last=None))
    silent(f"trained on scores that are no probabilities; val accuracy {history['val_accuracy'][-1]:.2f}")


def label_out_of_range() -> None:
    fit(net(), common.label_out_of_range())


def nan_target() -> None:
    model = net(outputs=1, last=None)
    fit(model, common.nan_target(), loss="mse", metrics=(), check=False)
    common.say_whether_nan(model.get_weights()[2])


def nan_input() -> None:
    model = net()
    fit(model, common.nan_input())
    common.say_whether_nan(model.get_weights()[2])


def high_learning_rate() -> None:
    model = net()
    fit(model, optimizer=keras.optimizers.SGD(1e20))
    common.say_whether_nan(model.get_weights()[2])


def flipped_bit() -> None:
    model = net()
    fit(model)
    model.save_weights("m.weights.h5")
    common.flip_a_bit("m.weights.h5", model.get_weights()[0])
    model.load_weights("m.weights.h5")
    silent("the wrong weights were loaded")


def killed_and_resumed() -> None:
    class Kill(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if epoch == 2:  # BackupAndRestore has saved the second epoch
                raise KeyboardInterrupt

    def train(*callbacks: Any) -> dict[str, Any]:
        keras.utils.set_random_seed(1)
        model = net()
        fit(model, epochs=4, callbacks=callbacks)
        return {str(place): weights for place, weights in enumerate(model.get_weights())}

    whole = train()
    try:
        train(keras.callbacks.BackupAndRestore("backup"), Kill())
    except KeyboardInterrupt:
        silent(common.whether_the_same(whole, train(keras.callbacks.BackupAndRestore("backup"))))


common.run(globals())
