"""``--tta flip``: the mean of the probabilities of an image and its mirror image, in eval and predict."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from trainkit.api import evaluate
from trainkit.builders.trained import open_trained, with_tta
from trainkit.cli import predict as command
from trainkit.config import load_config
from trainkit.engine import build_loss
from trainkit.errors import UserError
from trainkit.workflows.evaluate.run import evaluation_folder
from trainkit.workflows.predict.run import predict
from trainkit.workflows.train.run import train


@pytest.mark.parametrize("name", ["cross_entropy", "focal", "nll", "bce", "bce_with_logits"])
def test_probabilities_are_the_mean_over_both(name):
    loss = build_loss(name)
    last = {"log_probabilities": nn.LogSoftmax(1), "probabilities": nn.Sigmoid()}.get(loss.expects, nn.Identity())
    model = nn.Sequential(nn.Flatten(), nn.Linear(30, 1 if loss.is_binary else 4), last)
    inputs = torch.randn(7, 2, 3, 5)
    outputs = with_tta(model, loss, tta="flip", is_image=True)(inputs)
    expected = (loss.probabilities(model(inputs)) + loss.probabilities(model(inputs.flip(3)))) / 2
    torch.testing.assert_close(loss.probabilities(outputs), expected)


def test_shifted_views_repeat_the_edge():
    model, inputs = nn.Sequential(nn.Flatten(), nn.Linear(15, 2)), torch.arange(15.0).view(1, 1, 3, 5)
    outputs = with_tta(model, build_loss("mse"), tta="flip_shift", is_image=True)(inputs)
    rows, columns = [0, 0, 1], [0, 0, 1, 2, 3]  # down and right
    low = inputs[..., rows, :][..., columns]
    high = inputs[..., [1, 2, 2], :][..., [1, 2, 3, 4, 4]]
    views = [view for image in (inputs, low, high) for view in (image, image.flip(3))]
    torch.testing.assert_close(outputs, sum(map(model, views)) / 6)


def test_images_of_one_pixel_have_six_views_too():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 2))
    inputs = torch.randn(2, 3, 1, 1)
    outputs = with_tta(model, build_loss("mse"), tta="flip_shift", is_image=True)(inputs)
    torch.testing.assert_close(outputs, model(inputs))


def test_values_are_the_mean_over_both():
    model, inputs = nn.Sequential(nn.Flatten(), nn.Linear(6, 2)), torch.randn(4, 1, 2, 3)
    outputs = with_tta(model, build_loss("mse"), tta="flip", is_image=True)(inputs)
    torch.testing.assert_close(outputs, (model(inputs) + model(inputs.flip(3))) / 2)


def test_eval_and_predict_give_the_same_and_say_so(tiny_run, capsys, tmp_path):
    plain, flipped = evaluate(tiny_run.best_checkpoint), evaluate(tiny_run.best_checkpoint, tta="flip")
    assert flipped.as_json()["tta"] == "flip"
    assert "tta" not in plain.as_json()
    assert flipped.metrics["loss"] != plain.metrics["loss"]
    assert evaluation_folder(flipped) != evaluation_folder(plain)
    trained = open_trained(tiny_run.best_checkpoint)
    images = torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8)
    expected = (trained.predict(images) + trained.predict(images.flip(3))) / 2
    found = list(predict(tiny_run.best_checkpoint, images.numpy(), top_k=10, tta="flip"))
    for one, row in zip(found, expected, strict=True):
        torch.testing.assert_close(torch.tensor([dict(one.top)[name] for name in trained.class_names]), row)
    path = tmp_path / "images.npy"
    np.save(path, images.numpy())
    command.predict([str(tiny_run.best_checkpoint), str(path)], tta="flip", json=True, quiet=True)
    document = json.loads(capsys.readouterr().out)
    assert document["tta"] == "flip"
    assert document["predictions"][0]["probability"] == pytest.approx(found[0].probability)


def test_tables_and_exported_programs_have_no_mirror_image(tmp_path, tiny_run):
    (tmp_path / "c.yaml").write_text("{dataset: iris, model: mlp, training: {epochs: 1}, logging: {plots: false}}")
    run = train(load_config(tmp_path / "c.yaml"), runs_dir=tmp_path / "runs")
    for refused in (
        lambda: evaluate(run.best_checkpoint, tta="flip"),
        lambda: predict(run.best_checkpoint, [[1.0, 2.0, 3.0, 4.0]], tta="flip"),
    ):
        with pytest.raises(UserError, match="rows of a table have no mirror image"):
            refused()
    with pytest.raises(UserError, match="an exported program takes an image as it is"):
        predict(Program(), torch.zeros(1, 1, 8, 8, dtype=torch.uint8).numpy(), tta="flip")


class Program:
    """Some other predictor than a checkpoint's."""
