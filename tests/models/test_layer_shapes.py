import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from trainkit.errors import ProblemsError
from trainkit.models.meta_forward import output_shape

sizes = st.integers(1, 4)
pairs = st.tuples(sizes, sizes)


@st.composite
def image_layers(draw):
    channels = draw(st.sampled_from([1, 2, 4]))
    layer = draw(
        st.one_of(
            st.builds(
                nn.Conv2d,
                st.just(channels),
                st.just(4),
                kernel_size=pairs,
                stride=pairs,
                padding=st.integers(0, 2),
                dilation=st.integers(1, 2),
            ),
            st.builds(
                nn.Conv2d, st.just(channels), st.just(4), kernel_size=pairs, padding=st.sampled_from(["same", "valid"])
            ),
            st.builds(nn.MaxPool2d, kernel_size=pairs, stride=st.none() | pairs, padding=st.integers(0, 2)),
            st.builds(nn.AvgPool2d, kernel_size=sizes, stride=st.none() | sizes, padding=st.integers(0, 2)),
            st.builds(nn.MaxPool2d, kernel_size=pairs, ceil_mode=st.just(True)),
            st.builds(nn.AdaptiveAvgPool2d, pairs | sizes | st.tuples(st.none(), sizes)),
            st.builds(nn.BatchNorm2d, st.just(channels)),
            st.builds(nn.Flatten, start_dim=st.integers(0, 2)),
            st.builds(nn.Softmax, dim=st.integers(-5, 5)),
            st.builds(nn.Linear, sizes, st.just(3)),
            st.builds(nn.LayerNorm, sizes | pairs),
            st.builds(nn.GroupNorm, st.just(2), st.sampled_from([4, 8])),
        )
    )
    return layer, (draw(st.integers(1, 2)), channels, draw(st.integers(1, 7)), draw(st.integers(1, 7)))


@settings(deadline=None, max_examples=300)
@given(image_layers())
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_agrees_with_running_the_layer(case):
    layer, shape = case
    try:
        actual = tuple(layer(torch.zeros(shape)).shape)
    except (RuntimeError, ValueError, IndexError):
        actual = None
    if actual is None or 0 in actual:
        with pytest.raises(ProblemsError):
            output_shape(layer, shape, key="model")
    else:
        assert output_shape(layer, shape, key="model") == actual


@pytest.mark.parametrize(
    "layer",
    [nn.ReLU(), nn.LeakyReLU(), nn.ELU(), nn.GELU(), nn.SiLU(), nn.Sigmoid(), nn.Tanh(), nn.Dropout(), nn.Identity()],
)
def test_elementwise_layers_keep_the_shape(layer):
    assert output_shape(layer, (2, 3, 4, 5), key="model") == (2, 3, 4, 5)


@pytest.mark.parametrize(("layer", "shape"), [(nn.BatchNorm1d(4), (1, 4)), (nn.BatchNorm2d(4), (1, 4, 1, 1))])
def test_batch_norm_of_one_value_is_refused(layer, shape):
    with pytest.raises(ProblemsError, match=r"one value a feature in a batch of 1 sample \(N, 4.*drop_last: true"):
        output_shape(layer, shape, key="model.norm")
