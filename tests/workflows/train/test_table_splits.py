"""A table split by its columns, from the config to the scores of the checkpoint."""

import numpy as np
import pytest
from engine_runs import Said, differences, frontend, load, train_with_stops

from trainkit.api import evaluate
from trainkit.errors import Interrupted, UserError
from trainkit.system.frontend import Frontend
from trainkit.workflows.check.run import check
from trainkit.workflows.train.run import resume, train

CONFIG = """
name: split
dataset: {{type: table, path: {path}, target: grade, split: {split}}}
model: {{type: mlp, hidden_sizes: [8]}}
training: {{epochs: 4, batch_size: 32}}
logging: {{every: 1, plots: false}}
"""


@pytest.fixture
def table(tmp_path):
    rng = np.random.default_rng(0)
    lines = ["patient,day,fold,size,grade"]
    for row in range(200):
        size, patient, day = rng.normal(), rng.integers(20), rng.integers(1, 28)
        lines.append(f"p{patient},2024-02-{day:02d},{row % 5},{size:.3f},{'good' if size > 0 else 'bad'}")
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.mark.parametrize(
    "split",
    [
        "{type: group, column: patient}",
        "{type: time, column: day}",
        "{type: column, column: fold, val: [3], test: [4]}",
    ],
)
def test_check_train_resume_and_eval_have_the_same_splits(table, split):
    config = load(table, CONFIG.format(path=table / "t.csv", split=split))
    said = Said()
    whole = train(config, runs_dir=table / "runs", frontend=Frontend(say=said.append))
    resumed = train_with_stops(config, table / "stopped", [7])
    assert differences(whole.run, resumed) == []
    [line] = [text for text in said if "the rows are split by" in text]
    assert line.removeprefix("note: ").strip() in check(config).notes
    again = evaluate(whole.best_checkpoint)
    assert {name: again.metrics[name] for name in whole.metrics["test"]} == whole.metrics["test"]


def test_another_split_is_another_run(table):
    config = load(
        table, CONFIG.format(path=table / "t.csv", split="{type: group, column: patient}, features: [size, fold]")
    )
    with pytest.raises(Interrupted):
        train(config, runs_dir=table / "runs", frontend=frontend(stop_at=7))
    with pytest.raises(UserError, match="holds other samples of the same data"):
        resume(
            runs_dir=table / "runs",
            overrides=["dataset.split={type: time, column: day}"],
            allow_change=["dataset.split"],
            frontend=Frontend(),
        )
