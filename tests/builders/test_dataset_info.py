"""A config and its data agree on the facts, and every command that opens data checks the rules with them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainkit.builders.data import check_rules, dataset_info, load_data, load_source
from trainkit.config import load_config
from trainkit.config.schema import Config
from trainkit.errors import ConfigError, ProblemsError
from trainkit.workflows.bench.speed import measure
from trainkit.workflows.inspect import inspect_config
from trainkit.workflows.preview import preview

PROBLEMS = ["blobs", "moons", "spirals", "linear_regression", "random_binary"]
BUNDLED = ["digits", "iris", "wine", "breast_cancer", "diabetes"]


def config_of(dataset, **sections) -> Config:
    return Config.model_validate({"dataset": dataset, "model": "mlp", **sections})


@pytest.mark.parametrize("dataset", BUNDLED + [{"type": "synthetic", "problem": name} for name in PROBLEMS], ids=str)
@pytest.mark.parametrize("fractions", [{}, {"val_fraction": 0.0, "test_fraction": 0.35}])
def test_a_config_knows_its_data(dataset, fractions: dict) -> None:
    named = {"type": dataset} if isinstance(dataset, str) else dataset
    config = config_of({**named, **fractions})
    known, opened = config.dataset.known_info(), dataset_info(config, load_source(config))
    for fact in ("kind", "task", "num_classes", "num_targets", "num_features", "num_train", "num_val", "num_test"):
        assert getattr(opened, fact) == getattr(known, fact), fact
    if known.kind == "image":
        assert opened.static_shape == known.image_shape


def test_a_config_knows_mnist(real_data: Path) -> None:
    config = config_of({"type": "mnist", "root": str(real_data), "download": False})
    known, opened = config.dataset.known_info(), dataset_info(config, load_source(config))
    sizes = (opened.num_train, opened.num_val, opened.num_test)
    assert sizes == (known.num_train, known.num_val, known.num_test) == (54_000, 6_000, 10_000)
    assert opened.static_shape == known.image_shape


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for name in ("cat", "dog"):
        (tmp_path / "pics" / name).mkdir(parents=True)
        for index in range(8):
            image = np.full((12, 8), 10 * index + len(name), dtype=np.uint8)
            Image.fromarray(image).save(tmp_path / "pics" / name / f"{index}.png")
    return tmp_path / "pics"


def test_the_shape_of_pictures_is_that_after_the_static_transforms(pictures: Path, monkeypatch) -> None:
    monkeypatch.setenv("TRAINKIT_CACHE", str(pictures.parent / "cache"))
    config = config_of({"type": "image_folder", "root": str(pictures)}, transforms=[{"type": "resize", "size": 6}])
    info = dataset_info(config, load_source(config))
    assert (info.image_shape, info.static_shape, info.num_classes) == ((1, None, None), (1, 9, 6), 2)
    assert dataset_info(config, load_data(config)[0], materialized=True) == info


def test_pictures_that_cannot_be_read_have_no_shape(pictures: Path) -> None:
    config = config_of({"type": "image_folder", "root": str(pictures)})
    data = load_source(config)
    for path in pictures.rglob("*.png"):
        path.write_bytes(b"no image")
    assert dataset_info(config, data).static_shape is None
    check_rules(config, data)


@pytest.fixture
def crop_too_large(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRAINKIT_CACHE", str(pictures.parent / "cache"))
    path = pictures.parent / "c.yaml"
    path.write_text(
        f"dataset: {{type: image_folder, root: {pictures}}}\nmodel: mlp\ntransforms: [{{type: random_crop, size: 9}}]\n"
    )
    return path


def test_bench_inspect_and_preview_check_the_rules(crop_too_large: Path, tmp_path: Path) -> None:
    loaded = load_config(crop_too_large)
    expected = r"c.yaml:3:\d+: transforms\[0\].size: the crop is larger than the padded image of 12 x 8, got 9 with"
    for command in (
        lambda: measure(loaded, seconds=0.1),
        lambda: inspect_config(loaded),
        lambda: preview(loaded, tmp_path / "preview.png"),
    ):
        with pytest.raises(ConfigError, match=expected):
            command()


def test_a_loss_for_another_task_names_its_column(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,y\n" + "".join(f"{row},{'pq'[row % 2]}\n" for row in range(20)))
    config = config_of({"type": "table", "path": str(tmp_path / "t.csv"), "target": "y"}, loss="huber")
    with pytest.raises(ProblemsError, match=r"huber is for values to predict, and `dataset.target: y` has classes"):
        check_rules(config, load_source(config))
