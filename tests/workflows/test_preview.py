"""``trainkit data preview`` draws the first training images and what the random transforms make of them."""

import numpy as np
from no_room import leave_no_room_for_images
from PIL import Image
from typer.testing import CliRunner

from trainkit.cli.app import app
from trainkit.errors import UserError
from trainkit.workflows import preview as module


def write_config(tmp_path, text):
    path = tmp_path / "p.yaml"
    path.write_text(text + "\nmodel: {type: mlp}\n")
    return str(path)


def test_a_preview_shows_each_image_and_its_versions(tmp_path, monkeypatch):
    shown = {}
    real = module.plot_preview
    monkeypatch.setattr(
        module,
        "plot_preview",
        lambda path, a, b, names, **options: shown.update(a=a, b=b, names=names) or real(path, a, b, names, **options),
    )
    config = write_config(tmp_path, "dataset: digits\ntransforms: [{type: random_crop, padding: 2}, normalize]")
    output = tmp_path / "out.png"
    done = CliRunner().invoke(app, ["data", "preview", config, "--output", str(output), "--images", "4"])
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == str(output)
    assert Image.open(output).size[0] > 400
    assert shown["a"].shape == (4, 1, 8, 8)
    assert [images.shape for images in shown["b"]] == [(4, 1, 8, 8)] * 2
    assert shown["a"].max() <= 1
    assert shown["a"].max() > 0.9, "back from the normalized values"
    assert (shown["b"][0] != shown["a"]).any()
    assert (shown["b"][0] != shown["b"][1]).any(), "another epoch, another drawing"


def test_mixed_images_have_both_classes(tmp_path, monkeypatch):
    """Of the images that are shown, which the balanced sampler draws."""
    shown = {}
    real = module.plot_preview

    def keep(path, a, b, names, **options):
        shown.update(a=a, b=b, names=names, **options)
        return real(path, a, b, names, **options)

    monkeypatch.setattr(module, "plot_preview", keep)
    text = "dataset: digits\ntraining: {mix: {type: cutmix, p: 0.8}, sampler: balanced}"
    output = tmp_path / "out.png"
    done = CliRunner().invoke(app, ["data", "preview", write_config(tmp_path, text), "--output", str(output)])
    assert done.exit_code == 0, done.output
    assert shown["title"].endswith(": cutmix of these images")
    for image, label, original, name in zip(shown["b"][0], shown["mixed"][0], shown["a"], shown["names"], strict=True):
        if "+" not in label:
            continue
        one, share, _, other = label.split()
        assert name in (one, other)
        larger = float(share.rstrip("%")) / 100
        assert 0.5 <= larger <= 1
        kept = larger if one == name else 1 - larger
        changed = (image != original).mean()
        assert changed <= 1 - kept + 0.01
    assert sum("+" in label for label in shown["mixed"][0]) > 4
    assert shown["mixed"][0] != shown["mixed"][1]


def test_images_that_fit_nowhere_are_decoded(tmp_path, monkeypatch):
    leave_no_room_for_images(monkeypatch)
    for label in range(2):
        (tmp_path / "images" / str(label)).mkdir(parents=True)
        for index in range(10):
            pixels = np.full((12, 12), 100 * label + index, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / str(label) / f"{index}.png")
    shown = {}
    monkeypatch.setattr(module, "plot_preview", lambda path, a, b, names, title, mixed: shown.update(a=a, title=title))
    transforms = "transforms: [{type: resize, size: 8}, {type: color_jitter, contrast: 0.2}, random_horizontal_flip]"
    config = write_config(tmp_path, f"dataset: {{type: image_folder, root: {tmp_path}/images}}\n{transforms}")
    done = CliRunner().invoke(app, ["data", "preview", config, "--images", "3"])
    assert done.exit_code == 0, done.output
    assert shown["a"].shape == (3, 1, 8, 8)
    assert shown["title"].endswith(": color_jitter, random_horizontal_flip")


def test_a_table_has_no_images(tmp_path):
    done = CliRunner().invoke(app, ["data", "preview", write_config(tmp_path, "dataset: iris")])
    assert isinstance(done.exception, UserError)
    assert "iris is a table" in str(done.exception)
