"""The names, weights and presets that are written down are torchvision's."""

from torchvision import models

from trainkit.config.schema.presets import TORCHVISION, Preset


def preset_of(weights):
    made = weights.transforms()
    return Preset(made.resize_size[0], made.crop_size[0], made.interpolation.value, tuple(made.mean), tuple(made.std))


def test_every_classifier_is_there():
    assert list(TORCHVISION) == models.list_models(module=models)


def test_weights_and_presets():
    for name, known in TORCHVISION.items():
        published = models.get_model_weights(name)
        theirs = {weights.name: preset_of(weights) for weights in published if "FEATURES" not in weights.name}
        assert known == theirs, name
        assert next(iter(known)) == published.DEFAULT.name, name
