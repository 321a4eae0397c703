"""Predictions from a checkpoint alone: equal to those of evaluation, also among broken inputs."""

import csv
import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from flat_sources import load_bundled
from PIL import Image

from trainkit.builders.trained import open_trained
from trainkit.cli import predict as command
from trainkit.config import load_config
from trainkit.data.target_scale import in_own_units
from trainkit.errors import CheckpointError, Interrupted, TrainkitError, UserError
from trainkit.system.frontend import Frontend, StopRequest
from trainkit.workflows.evaluate.run import setup_on_data
from trainkit.workflows.predict.run import open_model, predict
from trainkit.workflows.scoring import score_and_keep
from trainkit.workflows.train.run import train


def train_config(folder, text):
    path = folder / "config.yaml"
    path.write_text(text)
    return train(load_config(path), runs_dir=folder / "runs")


def evaluated(run, split="test"):
    """The raw inputs of a split and what evaluation makes of them: (inputs, answers)."""
    setup = setup_on_data(open_trained(run.best_checkpoint), frontend=Frontend())
    _, outputs = score_and_keep(setup, split, frontend=Frontend(), stopped="")
    if setup.loss.is_classification:
        answers = setup.loss.probabilities(outputs)
    else:
        answers = torch.from_numpy(in_own_units(outputs.numpy(), setup.data.target_scale))
    chosen = setup.data.splits[split]
    return setup.data.parts[chosen.part].inputs[chosen.indices], answers


@pytest.fixture(scope="module")
def digit_files(tiny_run, tmp_path_factory):
    """The test split of the digits as PNG files, in order."""
    folder = tmp_path_factory.mktemp("digits")
    inputs, _ = evaluated(tiny_run)
    for index, image in enumerate(inputs):
        Image.fromarray(image[0]).save(folder / f"{index:04d}.png")
    return folder


def probabilities(predictions, class_names):
    return torch.tensor([[dict(p.top)[name] for name in class_names] for p in predictions])


def test_predictions_are_those_of_the_evaluation(tiny_run, digit_files):
    _, expected = evaluated(tiny_run)
    found = list(predict(tiny_run.best_checkpoint, [digit_files], top_k=10))
    names = [str(digit) for digit in range(10)]
    torch.testing.assert_close(probabilities(found, names), expected, rtol=0, atol=1e-6)
    assert [p.label for p in found] == [names[k] for k in expected.argmax(dim=1)]
    assert all(p.probability == max(dict(p.top).values()) for p in found)


def test_a_crop_in_the_middle_takes_the_place_of_a_random_one(tmp_path):
    run = train_config(
        tmp_path,
        """
dataset: digits
transforms: [{type: resize, size: [9, 10]}, {type: random_crop, size: 6}, random_horizontal_flip, normalize]
model: {type: cnn, blocks: [{channels: 4, kernel_size: 3}]}
training: {epochs: 1, batch_size: 64}
""",
    )
    _, expected = evaluated(run)
    raw = load_bundled("digits", val_fraction=0.1, test_fraction=0.2, seed=0)
    chosen = raw.splits["test"]
    np.save(tmp_path / "raw.npy", raw.parts[chosen.part].inputs[chosen.indices])
    found = list(predict(run.best_checkpoint, [tmp_path / "raw.npy"], top_k=10))
    found = probabilities(found, [str(digit) for digit in range(10)])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_tables_and_regression_without_their_data(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "train.csv"
    with path.open("w") as file:
        file.write("size,town,price\n")
        for _ in range(200):
            size, town = rng.uniform(20, 200), rng.choice(["Ulm", "Bonn"])
            file.write(f"{size:.3f},{town},{1000 * size + 5000 * (town == 'Bonn') + 0.5:.2f}\n")
    run = train_config(
        tmp_path,
        f"""
dataset: {{type: table, path: {path}, target: price}}
transforms: [standardize]
model: {{type: mlp, hidden_sizes: [8]}}
training: {{epochs: 2, batch_size: 32}}
""",
    )
    inputs, expected = evaluated(run)
    rows = [["Ulm" if row[1] else "Bonn", repr(float(row[0]))] for row in inputs]
    assert {row[0] for row in rows} == {"Ulm", "Bonn"}
    new = tmp_path / "new.csv"
    new.write_text("town,size\n" + "".join(",".join(row) + "\n" for row in rows))
    checkpoint = shutil.copy(run.best_checkpoint, tmp_path / "alone.pth")
    shutil.rmtree(tmp_path / "runs")
    path.unlink()
    found = list(predict(checkpoint, [new]))
    values = torch.tensor([p.values["price"] for p in found], dtype=torch.float64)
    torch.testing.assert_close(values, expected[:, 0], rtol=1e-6, atol=1e-4)
    assert found[0].source == f"{new}:2"
    assert found[0].as_json() == {"source": f"{new}:2", "values": {"price": found[0].values["price"]}}
    np.save(tmp_path / "rows.npy", inputs)
    again = [p.values["price"] for p in predict(checkpoint, [tmp_path / "rows.npy"])]
    assert again == pytest.approx(values.tolist())


def test_two_classes_of_one_output_from_columns_by_name(tmp_path):
    run = train_config(
        tmp_path,
        """
dataset: breast_cancer
transforms: [standardize]
model: {type: mlp, hidden_sizes: [8]}
loss: bce_with_logits
training: {epochs: 1, batch_size: 64}
""",
    )
    inputs, expected = evaluated(run)
    raw = load_bundled("breast_cancer", val_fraction=0.1, test_fraction=0.2, seed=0)
    names = list(raw.feature_names)
    order = np.random.default_rng(0).permutation(len(names))
    with (tmp_path / "x.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([names[k] for k in order])
        writer.writerows([[repr(float(row[k])) for k in order] for row in inputs])
    found = list(predict(run.run.path, [tmp_path / "x.csv"]))
    torch.testing.assert_close(probabilities(found, raw.class_names), expected, rtol=0, atol=1e-6)


def test_broken_inputs_stand_in_their_place(tiny_run, digit_files, tmp_path):
    files = [digit_files / "0000.png", tmp_path / "gone.png", digit_files / "0001.png", tmp_path / "empty.png"]
    (tmp_path / "empty.png").write_bytes(b"")
    found = list(predict(tiny_run.best_checkpoint, files))
    assert [p.source for p in found] == [str(file) for file in files]
    assert [p.error for p in found] == [None, "no such file or folder", None, "empty file (0 bytes)"]
    assert found[3].as_json() == {"source": str(files[3]), "error": "empty file (0 bytes)"}


def test_nothing_but_broken_files(tiny_run, tmp_path):
    (tmp_path / "x.png").write_bytes(b"x")
    assert [p.error is None for p in predict(tiny_run.best_checkpoint, [tmp_path / "x.png"])] == [False]


def test_none_of_the_inputs_is_there(tiny_run, tmp_path):
    with pytest.raises(UserError, match=r"a.png: no such file or folder\n.*: no images in this folder"):
        predict(tiny_run.best_checkpoint, [tmp_path / "a.png", tmp_path])


def test_progress_counts_every_sample_once(tiny_run, digit_files):
    calls = []
    frontend = Frontend(progress=lambda *pair: calls.append(pair))
    count = len(list(predict(tiny_run.best_checkpoint, [digit_files], frontend=frontend)))
    assert calls[-1] == (count, count)
    assert calls == sorted(calls)


def test_a_stop_is_heard(tiny_run, digit_files):
    stop = StopRequest()
    found = predict(tiny_run.best_checkpoint, [digit_files] * 5, frontend=Frontend(stop=stop))
    next(found)
    stop.signum = 2
    with pytest.raises(Interrupted, match="stopped by SIGINT"):
        list(found)


def test_what_is_no_model(tmp_path):
    with pytest.raises(CheckpointError):
        open_model(tmp_path / "none.pth")
    (tmp_path / "model.pt").write_bytes(b"")
    with pytest.raises(UserError, match=r"no signature.json beside it"):
        open_model(tmp_path / "model.pt")


def run_command(model, inputs, **options):
    command.predict([str(model), *map(str, inputs)], **options)


def test_lines_for_a_pipe(tiny_run, digit_files, capsys):
    run_command(tiny_run.run.path, [digit_files / "0000.png"])
    out, err = capsys.readouterr()
    header, (source, *answers) = (line.split("\t") for line in out.splitlines())
    pairs = ["label", "probability", "label_2", "probability_2", "label_3", "probability_3"]
    assert (header, source) == (["source", *pairs], str(digit_files / "0000.png"))
    assert len(set(answers[::2]) & set("0123456789")) == 3
    assert 1 >= float(answers[1]) >= float(answers[3]) >= float(answers[5]) >= 0
    assert err.startswith("checkpoint: ")


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_files_hold_every_input(tiny_run, digit_files, tmp_path, suffix, capsys):
    output = tmp_path / f"out.{suffix}"
    (tmp_path / 'b,"roken.png').write_bytes(b"")
    with pytest.raises(TrainkitError, match="1 of 360 inputs could not be used") as error:
        run_command(tiny_run.run.path, [tmp_path / 'b,"roken.png', digit_files], output=output, top_k=2)
    assert error.value.exit_code == 1
    assert "empty file (0 bytes)" in capsys.readouterr().err
    expected = list(predict(tiny_run.run.path, [digit_files], top_k=2))
    if suffix == "jsonl":
        rows = [json.loads(line) for line in output.read_text().splitlines()]
        assert rows[1:] == [p.as_json() for p in expected]
        assert rows[0]["error"] == "empty file (0 bytes)"
        return
    with output.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["source", "label", "probability", "label_2", "probability_2", "error"]
    assert (rows[0]["source"], rows[0]["error"]) == (str(tmp_path / 'b,"roken.png'), "empty file (0 bytes)")
    found = [(row["source"], row["label"], float(row["probability"]), row["label_2"]) for row in rows[1:]]
    assert found == [(p.source, p.label, p.probability, p.top[1][0]) for p in expected]


def test_json(tiny_run, digit_files, tmp_path, capsys):
    (tmp_path / "x.png").write_bytes(b"")
    with pytest.raises(TrainkitError):
        run_command(tiny_run.run.path, [digit_files / "0000.png", tmp_path / "x.png"], json=True)
    rows = json.loads(capsys.readouterr().out)["predictions"]
    assert rows[0]["label"] == rows[0]["top"][0]["label"]
    assert rows[1] == {"source": str(tmp_path / "x.png"), "error": "empty file (0 bytes)"}


def test_an_output_that_cannot_be(tiny_run, digit_files, tmp_path):
    with pytest.raises(UserError, match=r"has to end in .csv or .jsonl"):
        run_command(tiny_run.run.path, [digit_files], output=tmp_path / "x.txt")
    with pytest.raises(UserError, match="there is no folder"):
        run_command(tiny_run.run.path, [digit_files], output=tmp_path / "none" / "x.csv")


def test_no_output_file_is_left_after_a_failure(tiny_run, tmp_path, digit_files):
    output = tmp_path / "x.csv"
    with pytest.raises(ZeroDivisionError), command.write_predictions(output, columns=["source"], json=False):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_an_exported_bundle_answers_as_its_checkpoint(tiny_run, digit_files, tmp_path, forked_checks):
    from trainkit.api import export

    export(tiny_run.best_checkpoint, formats=("torchscript",), output=tmp_path / "bundle")
    expected = list(predict(tiny_run.best_checkpoint, [digit_files], top_k=10))
    names = [str(digit) for digit in range(10)]
    for model in (tmp_path / "bundle", tmp_path / "bundle" / "model.pt"):
        found = list(predict(model, [digit_files], top_k=10))
        torch.testing.assert_close(probabilities(found, names), probabilities(expected, names), rtol=0, atol=1e-5)


def test_the_number_of_threads_is_what_it_was(tiny_run, digit_files):
    def threads_of_a_new_thread():
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(torch.get_num_threads).result()

    before = torch.get_num_threads(), threads_of_a_new_thread()
    assert len(list(predict(tiny_run.best_checkpoint, [digit_files]))) > 0
    next(unfinished := predict(tiny_run.best_checkpoint, [digit_files]))
    unfinished.close()
    assert (torch.get_num_threads(), threads_of_a_new_thread()) == before
