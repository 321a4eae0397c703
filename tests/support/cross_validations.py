"""A table with groups, gaps and a row without a target, and its config, for cross-validations."""

from pathlib import Path

import numpy as np

CONFIG = """\
dataset: {type: table, path: rows.csv, target: kind, test_fraction: 0.5}
model: {type: mlp, hidden_sizes: [8]}
transforms: [standardize]
optimizer: {type: adamw, lr: 0.03}
training: {epochs: 3, batch_size: 16}
export: {torchscript: false}
"""


def write_data(folder: Path) -> None:
    rng = np.random.default_rng(0)
    lines = ["patient,age,color,kind"]
    for row in range(90):
        kind = ("a", "b", "c")[row % 3]
        age = "" if row in (5, 40) else f"{rng.normal(row % 3 * 2):.3f}"
        lines.append(f"p{rng.integers(17)},{age},{'red' if rng.random() < 0.5 else 'blue'},{'' if row == 10 else kind}")
    (folder / "rows.csv").write_text("\n".join(lines) + "\n")
    (folder / "c.yaml").write_text(CONFIG)
