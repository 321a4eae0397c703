"""``dataset.weight``: rows count in the loss as their weight says, from the file to the report."""

import json

import numpy as np
import polars as pl
import pytest
import torch
from engine_runs import Said, differences, load, train_with_stops
from flat_sources import load_table

from trainkit.api import evaluate
from trainkit.builders import build_setup
from trainkit.checkpoints import load_checkpoint
from trainkit.data.tables import TableOptions, first_pass, load_table_to_score, text
from trainkit.engine import CapturedStep
from trainkit.engine.nonfinite import Guard
from trainkit.engine.pieces import own_pieces
from trainkit.engine.step import compute_gradients, train_step
from trainkit.errors import DataError, ProblemsError
from trainkit.runtime import Ranks, piece_bounds
from trainkit.system.frontend import Frontend
from trainkit.workflows.train.run import train

CONFIG = """
name: weighted
dataset: {{type: table, path: {path}, target: {target}, weight: w, features: [x, z]}}
model: {{type: mlp, hidden_sizes: [8]}}
loss: {loss}
optimizer: {optimizer}
training: {{epochs: 3, batch_size: 32, accumulation_steps: {pieces}}}
logging: {{every: 1, plots: false}}
"""


def write(path, rows=200):
    rng = np.random.default_rng(0)
    x = rng.normal(size=rows).round(3)
    frame = pl.DataFrame(
        {
            "x": x,
            "z": rng.normal(size=rows).round(3),
            "w": rng.choice([0.0, 0.5, 1.0, 7.0], rows),
            "grade": np.where(x + rng.normal(size=rows) > 0, "good", "bad"),
            "value": (1000 * x + rng.normal(size=rows)).round(2),
        }
    )
    frame.write_csv(path)
    return frame


def config(folder, target="grade", loss="auto", pieces=1, optimizer="adam"):
    return load(
        folder,
        CONFIG.format(path=folder / "t.csv", target=target, loss=loss, pieces=pieces, optimizer=optimizer),
    )


@pytest.mark.parametrize("pieces_of_batch", [1, 3])
@pytest.mark.parametrize(
    ("target", "loss"), [("grade", "{type: cross_entropy, label_smoothing: 0.1, weight: [1, 3]}"), ("value", "mse")]
)
def test_gradients_are_those_of_the_weighted_mean(tmp_path, target, loss, pieces_of_batch):
    frame = write(tmp_path / "t.csv")
    setup = build_setup(config(tmp_path, target, loss, pieces_of_batch).config)
    batch = next(iter(setup.batches("train", training=True).epoch(0)))
    expected = torch.tensor(frame["w"].to_list())[batch.indices]
    torch.testing.assert_close(batch.weights, expected.float())
    state, plan = setup.state(steps_per_epoch=4), setup.plan()
    total, normalizer, _ = compute_gradients(state, plan, batch)
    found = [parameter.grad.clone() for parameter in state.parameters]
    setup.model.zero_grad()
    outputs = setup.model(batch.inputs)
    if target == "grade":
        of_class = torch.tensor([1.0, 3.0])
        each = torch.nn.functional.cross_entropy(
            outputs, batch.targets, weight=of_class, label_smoothing=0.1, reduction="none"
        )
        norm = (of_class[batch.targets] * batch.weights).sum()
    else:
        each = torch.nn.functional.mse_loss(outputs, batch.targets, reduction="none").sum(dim=1)
        norm = batch.weights.sum()
    mean = (each * batch.weights).sum() / norm
    mean.backward()
    torch.testing.assert_close(total / normalizer, mean.detach())
    for got, parameter in zip(found, state.parameters, strict=True):
        torch.testing.assert_close(got, parameter.grad)
    assert sum(len(piece.weights) for _, piece in own_pieces(batch, piece_bounds(32, 3), Ranks())) == 32


@pytest.mark.parametrize(("target", "pieces_of_batch"), [("grade", 1), ("value", 2)])
def test_a_run_its_resume_and_its_scores(tmp_path, target, pieces_of_batch):
    frame = write(tmp_path / "t.csv")
    loaded = config(tmp_path, target, pieces=pieces_of_batch)
    said = Said()
    whole = train(loaded, runs_dir=tmp_path / "runs", frontend=Frontend(say=said.append))
    assert "the loss is weighted by 'w'; accuracies and other scores count each row once" in said
    resumed = train_with_stops(loaded, tmp_path / "stopped", [7])
    assert differences(whole.run, resumed) == []
    again = evaluate(whole.best_checkpoint)
    assert {name: again.metrics[name] for name in whole.metrics["test"]} == whole.metrics["test"]
    interval = again.report.intervals["loss"]
    assert interval.low < again.metrics["loss"] < interval.high
    assert (interval.low + interval.high) / 2 == pytest.approx(again.metrics["loss"], rel=1e-4)

    counts = frame["w"].cast(pl.Int64).to_numpy()
    frame[np.arange(200).repeat(counts)].drop("w").write_csv(tmp_path / "repeated.csv")
    frame.with_columns(w=pl.Series(counts)).write_csv(tmp_path / "counted.csv")
    repeated = evaluate(whole.best_checkpoint, data=tmp_path / "repeated.csv")
    weighted = evaluate(whole.best_checkpoint, data=tmp_path / "counted.csv")
    assert weighted.metrics["loss"] == pytest.approx(repeated.metrics["loss"], rel=1e-5)
    encoding = load_checkpoint(whole.best_checkpoint)["preprocessing"]["table_encoding"]
    data = load_table_to_score(
        str(tmp_path / "repeated.csv"), encoding, class_names=("bad", "good") if target == "grade" else ()
    )
    assert "no column 'w': the loss is not weighted, as that of the training was" in data.notes
    score = "accuracy" if target == "grade" else "mae"
    assert weighted.metrics[score] != repeated.metrics[score]
    facts = json.loads((whole.run.path / "run.json").read_text())["facts"]
    assert facts["constant_loss"] <= facts["zero_loss"]


def test_a_captured_step_reads_the_weights(tmp_path):
    write(tmp_path / "t.csv")
    said, states = [], []

    def again(work):
        work()
        return work

    for step in (train_step, CapturedStep(32, say=said.append, capture=again)):
        setup = build_setup(config(tmp_path, optimizer="{type: sgd, lr: 0.0625}").config)
        state, plan = setup.state(steps_per_epoch=4), setup.plan()
        guard = Guard(state.model, state.optimizer, skip_limit=0, scaled=False, loss_unit=1.0)
        losses = [
            step(state, plan, batch, guard=guard, lr=0.0625).loss
            for epoch in range(3)
            for batch in setup.batches("train", training=True).epoch(epoch)
        ]
        states.append([*losses, *state.parameters])
    assert step.recorded is not None
    assert not said
    assert all(torch.equal(one, other) for one, other in zip(*states, strict=True))


def opened(path, **more):
    options = TableOptions(target=["grade"], weight="w")
    return load_table(str(path), options=options, val_fraction=0.1, test_fraction=0.2, seed=0, **more)


def test_the_column_is_no_feature(tmp_path, monkeypatch):
    frame = write(tmp_path / "t.csv")
    data = opened(tmp_path / "t.csv")
    assert data.feature_names == ("x", "z", "value")
    np.testing.assert_array_equal(data.parts["all"].weights, frame["w"].cast(pl.Float32))
    assert next(row for row in data.columns if row["name"] == "w")["reason"] == "the loss is weighted by it"
    monkeypatch.setattr(text, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(first_pass, "KEPT_BYTES", 1000)
    streamed = opened(tmp_path / "t.csv", cache_dir=tmp_path / "cache")
    assert streamed.fingerprint == data.fingerprint
    assert isinstance(streamed.parts["all"].weights, np.memmap)
    frame.with_columns(w=2 * frame["w"]).write_csv(tmp_path / "t.csv")
    assert opened(tmp_path / "t.csv").fingerprint != data.fingerprint


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("-1", "t.csv:9: column 'w', the weight: got '-1'; a number from 0 to 1e30 is needed"),
        (None, "t.csv:9: column 'w', the weight: the cell is missing"),
        ("inf", "t.csv:9: column 'w', the weight: got 'inf'"),
        ("much", "t.csv:9: column 'w', the weight: got 'much'"),
    ],
)
def test_bad_weights(tmp_path, cell, message):
    frame = write(tmp_path / "t.csv")
    cells = [cell if row == 7 else str(value) for row, value in enumerate(frame["w"])]
    frame.with_columns(w=pl.Series(cells)).write_csv(tmp_path / "t.csv")
    with pytest.raises(DataError) as error:
        opened(tmp_path / "t.csv")
    assert message in str(error.value)


def test_no_weight_at_all(tmp_path):
    frame = write(tmp_path / "t.csv")
    frame.with_columns(w=pl.lit(0)).write_csv(tmp_path / "t.csv")
    with pytest.raises(ProblemsError, match="all weights of the training split are 0, so that it has no loss"):
        opened(tmp_path / "t.csv")
    frame.drop("w").write_csv(tmp_path / "t.csv")
    with pytest.raises(ProblemsError, match="has no column 'w'"):
        opened(tmp_path / "t.csv")
