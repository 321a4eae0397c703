"""Each fault that people have, planted in small real runs over many seeds: the planted cause comes first.

The seed draws the data, the split and the weights. One seed of each kind of fault runs by default; ten, and of its
variants too, with ``-m slow``.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
from PIL import Image

from trainkit.config import load_config
from trainkit.errors import TrainkitError
from trainkit.workflows.find import find_run
from trainkit.workflows.runs import findings_of
from trainkit.workflows.train.run import train


@dataclass(frozen=True)
class Samples:
    """A table, or gray pictures: (N, F) or uint8 (N, H, W), and their classes or values (N,)."""

    inputs: np.ndarray
    target: np.ndarray

    @property
    def are_pictures(self) -> bool:
        return self.inputs.ndim == 3


@dataclass(frozen=True)
class Case:
    """A run: what data it has, how its config differs from ``TABLE`` or ``PICTURES``, and what comes first."""

    name: str
    data: Callable[[np.random.Generator], Samples]
    sets: tuple[str, ...]
    expected: str | None = None
    is_variant: bool = False
    """Only with ``-m slow``."""


TABLE = """
seed: {seed}
dataset: {{type: table, path: {path}, target: target, val_fraction: 0.2, test_fraction: 0.2}}
transforms: [standardize]
model: {{type: mlp, hidden_sizes: [32]}}
{rest}"""
PICTURES = """
seed: {seed}
dataset: {{type: image_folder, root: {path}, val_fraction: 0.2, test_fraction: 0.2}}
transforms: [normalize]
model: {{type: cnn, blocks: [{{channels: 8, pool: 2}}], global_pool: avg, norm: batch}}
{rest}"""
REST = """optimizer: {type: adam, lr: 0.01}
training: {epochs: 12, batch_size: 32}
export: {torchscript: false}
logging: {plots: false}
"""


def classes(rng, *, num_samples=600, num_classes=2, columns=6, rare=0.5, gap=2.5):
    labels = rng.integers(num_classes, size=num_samples)
    if num_classes == 2:
        labels = rng.permutation(np.arange(num_samples) < round(rare * num_samples)).astype(int)
    centers = rng.normal(size=(num_classes, columns))
    centers *= gap / np.linalg.norm(centers, axis=1, keepdims=True)
    return Samples(rng.normal(size=(num_samples, columns)) + centers[labels], np.array([f"c{k}" for k in labels]))


def values(rng, *, num_samples=600, columns=6, mean=0.0, std=1.0, noise=0.2):
    inputs = rng.normal(size=(num_samples, columns))
    weights = rng.normal(size=columns)
    target = inputs @ (weights / np.linalg.norm(weights)) + noise * rng.normal(size=num_samples)
    return Samples(inputs, mean + std * target)


def changed(data, change):
    """The samples of ``data`` with other inputs."""

    def samples(rng):
        made = data(rng)
        return Samples(change(made.inputs).astype(made.inputs.dtype), made.target)

    return samples


def shuffled(data):
    """The samples of ``data`` with the labels of others."""

    def samples(rng):
        made = data(rng)
        return Samples(made.inputs, rng.permutation(made.target))

    return samples


def parity(rng, num_samples=600):
    """The class is the parity of the signs of ten columns: no small model sees it in so few samples."""
    inputs = rng.normal(size=(num_samples, 10))
    return Samples(inputs, np.array([f"c{odd}" for odd in (inputs > 0).sum(axis=1) % 2]))


def ring(rng, num_samples=600):
    """Two classes, one around the other."""
    inputs = rng.normal(size=(num_samples, 2))
    return Samples(inputs, np.array([f"c{far:d}" for far in (inputs**2).sum(axis=1) > 1.4]))


def hump(rng, num_samples=600):
    """A value that is high in the middle."""
    inputs = rng.normal(size=(num_samples, 2))
    return Samples(inputs, np.cos(2 * inputs[:, 0]) + 0.1 * rng.normal(size=num_samples))


def pictures(rng, *, num_samples=240, spread=40.0):
    """Stripes along or across, on noise."""
    labels = rng.integers(2, size=num_samples)
    stripes = spread * np.where(np.arange(12) % 4 < 2, 1.0, -1.0)
    along = np.broadcast_to(stripes, (num_samples, 12, 12))
    image = 128 + np.where(labels[:, None, None] == 1, along, along.transpose(0, 2, 1)) + rng.normal(0, 20, along.shape)
    return Samples(image.clip(0, 255).astype(np.uint8), np.array([f"c{k}" for k in labels]))


LONG = "training.epochs=30"
SGD = "optimizer={type: sgd, lr: 0.01}"
THREE_LAYERS = "model.hidden_sizes=[32, 32, 32]"
AS_THEY_ARE = "transforms=[]"
NOT_LEFT_OUT = [f"dataset.columns.f{column}=numeric" for column in range(6)]
"""Constant columns are no features unless a config asks for them."""
OWN_UNITS = "dataset.scale_target=false"
FAR, RARE = {"mean": 500_000, "std": 100_000}, {"num_samples": 1500, "rare": 0.01, "gap": 1.0}
OTHER_STATISTICS = "transforms=[{type: normalize, mean: [0.05], std: [0.02]}]"
TINY = {"num_samples": 400, "columns": 40}
FEW = ("dataset.test_fraction=0.75", "dataset.val_fraction=0.6")
LARGE = "model.hidden_sizes=[256]"
HUBER = "loss={type: huber, delta: 20}"
BINARY = ("loss=bce", "model.output=sigmoid")


def run(name, data, *sets):
    return Case(name, data, sets)


def variant(name, data, *sets):
    return Case(name, data, sets, is_variant=True)


def cases(expected: str | None, *given: Case) -> dict[str, Case]:
    return {case.name: replace(case, expected=expected) for case in given}


CASES = {
    **cases(
        None,
        run("healthy classes", classes),
        run("healthy, five classes", partial(classes, num_classes=5, gap=4), "training.epochs=20"),
        run("healthy binary", classes, *BINARY),
        run("healthy values", values, LONG),
        run("healthy values in the 100,000s", partial(values, **FAR), LONG),
        run("healthy values of 1e-6", partial(values, std=1e-6), LONG, SGD),
        run("healthy pictures", pictures, "training.epochs=20"),
        variant("healthy values in the hundreds", partial(values, mean=150, std=80), LONG, HUBER, "optimizer.lr=0.03"),
        variant("healthy, sgd", classes, "optimizer={type: sgd, lr: 0.05, momentum: 0.9}", "scheduler=one_cycle"),
        variant("healthy, one in fifty", partial(classes, rare=0.02, gap=5, num_samples=1500), "training.epochs=20"),
        variant(
            "healthy, weak relation",
            partial(values, noise=1.5, num_samples=3000),
            "training.epochs=8",
            "optimizer.lr=0.002",
            "model.hidden_sizes=[8]",
        ),
        variant("healthy pictures without normalize", pictures, "training.epochs=20", AS_THEY_ARE),
    ),
    **cases(
        "inputs-identical",
        run("constant inputs", changed(classes, lambda x: np.full_like(x, 3.0)), *NOT_LEFT_OUT),
        variant("constant inputs, values", changed(values, lambda x: 0 * x), AS_THEY_ARE, *NOT_LEFT_OUT),
    ),
    **cases(
        "inputs-out-of-scale",
        run("inputs in the 10,000s", changed(classes, lambda x: 10_000 * (x + 3)), AS_THEY_ARE),
        run("statistics of other pictures", pictures, OTHER_STATISTICS),
        variant("inputs in the 10,000s, sgd", changed(values, lambda x: 10_000 * (x + 3)), AS_THEY_ARE, SGD),
        variant("inputs of 0.001", changed(classes, lambda x: 0.001 * x), AS_THEY_ARE),
        variant("a column in the 10,000s", changed(values, lambda x: x * [1, 1, 1, 1, 1, 20_000]), AS_THEY_ARE),
        variant("pictures that hardly differ", changed(pictures, lambda x: 128 + (x > 128)), AS_THEY_ARE),
    ),
    **cases(
        "targets-out-of-scale",
        run("targets in the 100,000s", partial(values, **FAR), LONG, OWN_UNITS),
        run("targets of 1e-6", partial(values, std=1e-6), OWN_UNITS),
        variant("targets in the 100,000s, huber", partial(values, **FAR), LONG, "loss=huber", OWN_UNITS),
        variant("targets in the 100,000s around 0", partial(values, std=100_000), OWN_UNITS),
        variant("targets in the 100,000s, sgd", partial(values, **FAR), SGD, OWN_UNITS),
        variant("targets around 1000", partial(values, mean=1000), "optimizer.lr=0.001", OWN_UNITS),
        variant("targets of 1e-6, sgd", partial(values, std=1e-6), SGD, OWN_UNITS),
    ),
    **cases(
        "first-weights",
        run("born dead", classes, f"model.hidden_sizes={[2] * 20}", "model.init=kaiming_normal"),
        variant("weights too large", classes, THREE_LAYERS, "model.init={type: xavier_normal, gain: 100}"),
        variant("weights too small", classes, THREE_LAYERS, "model.init={type: xavier_normal, gain: 1.0e-6}"),
    ),
    **cases(
        "labels-unrelated",
        run("shuffled labels", shuffled(classes)),
        run("shuffled values", shuffled(values), LONG),
        run("parity", parity),
        variant("shuffled pictures", shuffled(pictures)),
        variant("shuffled, five classes", shuffled(partial(classes, num_classes=5)), LONG),
        variant("shuffled, 70 to 30", shuffled(partial(classes, rare=0.3))),
        variant("shuffled labels, large model", shuffled(classes), "model.hidden_sizes=[256, 256]"),
    ),
    **cases(
        "too-much-regularization",
        run("a weight decay of 5", classes, "optimizer={type: sgd, lr: 0.1, weight_decay: 5}"),
        variant("a weight decay of 50", values, "optimizer={type: adamw, lr: 0.01, weight_decay: 50}"),
    ),
    **cases(
        "learning-rate-too-high",
        run("a rate 1000 times too high", classes, "optimizer.lr=10"),
        variant("too high, values", values, "optimizer.lr=10"),
        variant("too high, values in the hundreds", partial(values, mean=150, std=80), HUBER, "optimizer.lr=30"),
        variant("too high, sgd", classes, "optimizer={type: sgd, lr: 100}"),
        variant("too high, values, sgd", values, "optimizer={type: sgd, lr: 50}"),
        variant("too high, one_cycle", classes, "optimizer.lr=10", "scheduler=one_cycle"),
    ),
    **cases(
        "learning-rate-too-low",
        run("a rate 1000 times too low", classes, "optimizer.lr=0.00001"),
        variant("too low, values", values, "optimizer.lr=0.00001"),
        variant("too low, pictures", pictures, "optimizer.lr=0.00001"),
        variant("too low, sgd", classes, "optimizer={type: sgd, lr: 0.00005}"),
        variant("too low, cosine", classes, "optimizer.lr=0.00001", "scheduler=cosine"),
        variant("a rate that moves nothing", classes, "optimizer={type: sgd, lr: 1.0e-9}"),
    ),
    **cases(
        "training-too-short",
        run("too few epochs", partial(classes, num_classes=5, gap=4), "training.epochs=3", "optimizer.lr=0.001"),
        variant("one epoch", partial(classes, num_classes=5, gap=4), "training.epochs=1", "optimizer.lr=0.003"),
        variant("too few epochs, values", values, "training.epochs=3", "optimizer.lr=0.002"),
    ),
    **cases(
        "class-collapse",
        run("99 to 1", partial(classes, **RARE)),
        variant("99 to 1, binary", partial(classes, **RARE), *BINARY),
        variant("95 to 5", partial(classes, num_samples=1500, rare=0.05, gap=0.8)),
    ),
    **cases(
        "underfitting",
        run("a line for a ring", ring, "model.hidden_sizes=[]"),
        variant("a line for a hump", hump, "model.hidden_sizes=[]", LONG),
    ),
    **cases(
        "overfitting",
        run("tiny data", partial(classes, **TINY, gap=1.5), *FEW, LARGE, LONG),
        variant("tiny data, values", partial(values, **TINY, noise=0.5), "dataset.test_fraction=0.7", LARGE, LONG),
    ),
}


def files_of(folder, table):
    if table.are_pictures:
        for index, (image, label) in enumerate(zip(table.inputs, table.target, strict=True)):
            (folder / "pictures" / label).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / "pictures" / label / f"{index}.png")
        return folder / "pictures"
    path = folder / "table.csv"
    lines = [",".join([*(f"f{k}" for k in range(table.inputs.shape[1])), "target"])]
    for row, target in zip(table.inputs, table.target, strict=True):
        last = target if isinstance(target, str) else f"{target:.9g}"
        lines.append(",".join([*(f"{value:.7g}" for value in row), last]))
    path.write_text("\n".join(lines))
    return path


def found_in(folder, config, sets):
    """The findings of a run, whether it ends well or not. What they suggest can be loaded, and is not there yet."""
    (folder / "config.yaml").write_text(config)
    loaded = load_config(folder / "config.yaml", overrides=list(sets))
    try:
        result = train(loaded, runs_dir=folder / "runs")
    except TrainkitError:
        run = find_run(None, runs_dir=folder / "runs")
        found = findings_of(run, run.read_info(), run.status())
    else:
        assert result.report is not None
        run, found = result.run, result.report.findings
    resolved = load_config(run.resolved_config).resolved()
    for finding in found:
        assert finding.changes, f"{finding.name} names no line of the config"
        known = [f"{change.key}={change.value}" for change in finding.changes if "..." not in change.value]
        changed = load_config(run.resolved_config, overrides=known).resolved()
        assert not known or changed != resolved, f"{finding.name} suggests what is there"
    return found


def config_of(folder, samples, seed):
    return (PICTURES if samples.are_pictures else TABLE).format(path=files_of(folder, samples), seed=seed, rest=REST)


def marked(name, seed):
    slow = seed > 0 or CASES[name].is_variant
    return pytest.param(name, seed, marks=[pytest.mark.slow] * slow)


@pytest.mark.parametrize(("name", "seed"), [marked(name, seed) for name in CASES for seed in range(10)])
def test_the_planted_cause_comes_first(tmp_path, name, seed):
    case = CASES[name]
    found = found_in(tmp_path, config_of(tmp_path, case.data(np.random.default_rng(seed)), seed), case.sets)
    names = [finding.name for finding in found]
    assert names[:1] == [case.expected] * (case.expected is not None), "\n".join(one.evidence for one in found)
