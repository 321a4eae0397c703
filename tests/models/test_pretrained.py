"""Networks by name: their heads, their sizes, one output, and weights by the names that layers have today."""

import pytest
import torch
from torch import nn
from torchvision import models

from trainkit.errors import ProblemsError
from trainkit.models import HeadSpec, build_timm, build_torchvision, check_shapes, current_names, head_names

NEW = HeadSpec()


def on_meta(name, outputs=7, *, side=224, head=NEW):
    with torch.device("meta"):
        return build_torchvision(name, outputs, input_shape=(3, side, side), head=head)


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("resnet18", "fc"),
        ("mobilenet_v3_small", "classifier.3"),
        ("efficientnet_b0", "classifier.1"),
        ("convnext_tiny", "classifier.2"),
        ("vit_b_16", "heads.head"),
        ("swin_t", "head"),
        ("densenet121", "classifier"),
        ("vgg11", "classifier.6"),
        ("squeezenet1_1", "classifier"),
        ("maxvit_t", "classifier.5"),
    ],
)
def test_the_last_layer_is_replaced(name, prefix):
    model = on_meta(name)
    assert model.head_prefixes == (prefix,)
    assert check_shapes(model, (3, 224, 224)) == (2, 7)
    own = {key: value.shape for key, value in model.state_dict().items()}
    with torch.device("meta"):
        theirs = {key: value.shape for key, value in models.get_model(name, weights=None).state_dict().items()}
    assert {key for key in own | theirs if own.get(key) != theirs.get(key)} <= head_names(model, {**own, **theirs})


@pytest.mark.parametrize("name", ["googlenet", "inception_v3", "regnet_y_400mf", "swin_v2_t", "mnasnet0_5"])
def test_one_output_on_meta(name):
    side = 299 if name == "inception_v3" else 256
    assert check_shapes(on_meta(name, side=side), (3, side, side)) == (2, 7)


def test_keep_leaves_the_network_as_it_is():
    torch.manual_seed(0)
    theirs = models.resnet18().eval()
    torch.manual_seed(0)
    own = build_torchvision("resnet18", 1000, input_shape=(3, 64, 64), head=None).eval()
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(own(images), theirs(images))


def test_dropout_and_hidden_sizes():
    model = on_meta("resnet18", head=HeadSpec(0.3, [16]))
    assert [type(layer).__name__ for layer in model.fc] == ["Dropout", "Linear", "ReLU", "Dropout", "OutputLinear"]
    own = on_meta("mobilenet_v3_small", head=HeadSpec(0.4))  # has a dropout itself, which is not doubled
    assert [layer.p for layer in own.modules() if isinstance(layer, nn.Dropout)] == [0.4]
    assert on_meta("efficientnet_b0").classifier[0].p == 0.2


def test_values_below_zero_of_squeezenet():
    torch.manual_seed(0)
    model = build_torchvision("squeezenet1_1", 3, input_shape=(3, 64, 64), head=NEW).eval()
    assert (model(torch.rand(16, 3, 64, 64)) < 0).any()


def test_outputs_are_fp32_under_autocast():
    model = build_torchvision("mobilenet_v3_small", 3, input_shape=(3, 64, 64), head=NEW).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(torch.rand(2, 3, 64, 64)).dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("vit_b_16", (3, 40, 48), "vit_b_16 takes square images, got 40 x 48"),
        ("vit_b_16", (3, 40, 40), "vit_b_16 does not take images of 40 x 40"),
        ("maxvit_t", (3, 100, 100), "maxvit_t does not take images of 100 x 100"),
        ("resnet18", (13,), "resnet18 takes images"),
    ],
)
def test_sizes_that_do_not_fit(name, shape, words):
    with torch.device("meta"), pytest.raises(ProblemsError, match=words):
        build_torchvision(name, 7, input_shape=shape, head=NEW)


def test_another_fixed_size():
    assert check_shapes(on_meta("vit_b_32", side=64), (3, 64, 64)) == (2, 7)


def test_names_of_before():
    tensors = dict.fromkeys(
        [
            "features.denseblock1.denselayer1.norm.1.running_mean",
            "encoder.layers.encoder_layer_0.mlp.linear_2.bias",
            "aux1.fc.weight",
            "fc.weight",
        ]
    )
    assert list(current_names(tensors)) == [
        "features.denseblock1.denselayer1.norm1.running_mean",
        "encoder.layers.encoder_layer_0.mlp.3.bias",
        "fc.weight",
    ]


def test_weights_without_a_version():
    model = build_torchvision("mnasnet0_5", 7, input_shape=(3, 64, 64), head=NEW)
    model.load_state_dict(dict(model.state_dict()))


class TestTimm:
    timm = pytest.importorskip("timm")

    @pytest.mark.parametrize(
        ("name", "prefix"), [("tf_efficientnet_lite0", "classifier"), ("convnext_atto", "head.fc"), ("resnet10t", "fc")]
    )
    def test_the_last_layer_is_replaced(self, name, prefix):
        with torch.device("meta"):
            model = build_timm(name, 7, input_shape=(3, 64, 64), head=HeadSpec(0.1, [5]))
        assert model.head_prefixes == (prefix,)
        assert check_shapes(model, (3, 64, 64)) == (2, 7)

    def test_a_new_head_begins_as_any_linear_layer(self):
        """timm's own begins ten times larger for ten classes, and ends far worse on features that are frozen."""
        model = build_timm("tf_efficientnet_lite0", 10, input_shape=(3, 64, 64), head=NEW)
        assert model.classifier.weight.abs().max() <= 1280**-0.5

    def test_a_fixed_size_follows_the_images(self):
        with torch.device("meta"):
            model = build_timm("vit_tiny_patch16_224", 7, input_shape=(3, 64, 64), head=NEW)
        assert check_shapes(model, (3, 64, 64)) == (2, 7)

    def test_a_wrong_name(self):
        with pytest.raises(ProblemsError, match=r"did you mean resnet18\?"):
            build_timm("resnet_18", 7, input_shape=(3, 64, 64), head=NEW)
