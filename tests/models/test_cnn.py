import pytest
import torch
from torch import nn

from trainkit.errors import ProblemsError
from trainkit.models.cnn import BlockSpec, build_cnn


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def message(error):
    (problem,) = error.value.problems
    return f"{problem.key}: {problem.message}"


def test_has_the_well_known_number_of_parameters():
    """The two-convolution network of many MNIST tutorials: 5 x 5 kernels, batch norm, pooling, one linear layer."""
    blocks = [BlockSpec(16, 5, pool=2), BlockSpec(32, 5, pool=2)]
    assert count(build_cnn((1, 28, 28), 10, blocks=blocks, norm="batch")) == 29_034


def test_starts_and_computes_as_the_network_written_by_hand():
    torch.manual_seed(3)
    blocks = [BlockSpec(4, [3, 5], pool=2), BlockSpec(6, 2, padding=1, stride=2, activation="gelu", norm="none")]
    built = build_cnn((3, 12, 12), 7, blocks=blocks, norm="batch", head_sizes=[9], output="softmax")
    torch.manual_seed(3)
    by_hand = nn.Sequential(
        *(nn.Conv2d(3, 4, (3, 5), padding="same"), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(4, 6, 2, padding=1, stride=2), nn.GELU()),
        *(nn.Flatten(), nn.Linear(6 * 4 * 4, 9), nn.ReLU(), nn.Linear(9, 7), nn.Softmax(dim=1)),
    )
    images = torch.randn(5, 3, 12, 12)
    for ours, theirs in zip(built.parameters(), by_hand.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(built(images), by_hand(images))


def test_residual_block_adds_its_input_before_the_activation():
    model = build_cnn((4, 6, 6), 2, blocks=[BlockSpec(4, residual=True)], norm="batch").eval()
    block = model.blocks[0]
    images = torch.randn(3, 4, 6, 6)
    assert isinstance(block.shortcut, nn.Identity)
    assert torch.equal(block(images), torch.relu(block.norm(block.conv(images)) + images))


def test_residual_block_projects_its_input_when_the_shape_changes():
    blocks = [BlockSpec(8, stride=2, padding=1, residual=True, pool=2)]
    plain = build_cnn((4, 7, 7), 2, blocks=blocks).eval()
    assert isinstance(plain.blocks[0].shortcut, nn.Conv2d)
    normed = build_cnn((4, 7, 7), 2, blocks=blocks, norm="batch").eval()
    assert [type(layer) for layer in normed.blocks[0].shortcut] == [nn.Conv2d, nn.BatchNorm2d]
    assert normed(torch.randn(2, 4, 7, 7)).shape == (2, 2)


def test_two_convolutions_start_and_compute_as_the_network_written_by_hand():
    torch.manual_seed(3)
    blocks = [
        BlockSpec(4, convs=2, pool=2),
        BlockSpec(8, 5, padding=2, stride=2, convs=2, norm="group", residual=True, activation="gelu"),
    ]
    built = build_cnn((3, 12, 12), 7, blocks=blocks, norm="batch", norm_groups=2, bias=False)
    torch.manual_seed(3)
    first = nn.Sequential(
        *(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU()),
        *(nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)),
    )
    branch = nn.Sequential(
        *(nn.Conv2d(4, 8, 5, padding=2, stride=2, bias=False), nn.GroupNorm(2, 8), nn.GELU()),
        *(nn.Conv2d(8, 8, 5, padding=2, bias=False), nn.GroupNorm(2, 8)),
    )
    shortcut = nn.Sequential(nn.Conv2d(4, 8, 1, stride=2, bias=False), nn.GroupNorm(2, 8))
    head = nn.Sequential(nn.Flatten(), nn.Linear(8 * 3 * 3, 7))
    images = torch.randn(5, 3, 12, 12)
    by_hand = (parameter for part in (first, branch, shortcut, head) for parameter in part.parameters())
    for ours, theirs in zip(built.parameters(), by_hand, strict=True):
        assert torch.equal(ours, theirs)
    middle = first(images)
    assert torch.equal(built(images), head(nn.functional.gelu(branch(middle) + shortcut(middle))))


@pytest.mark.parametrize("global_pool", ["avg", "max"])
def test_global_pool_makes_one_value_a_channel(global_pool):
    model = build_cnn((3, 9, 9), 5, blocks=[BlockSpec(7)], global_pool=global_pool)
    assert model.head.output.in_features == 7
    assert model(torch.randn(2, 3, 9, 9)).shape == (2, 5)


def test_dropout_takes_whole_channels_in_blocks_and_single_values_in_the_head():
    model = build_cnn(
        (3, 8, 8), 5, blocks=[BlockSpec(4), BlockSpec(4, dropout=0.0)], dropout=0.25, head_dropout=0.5, head_sizes=[6]
    )
    drops = {name: (type(m), m.p) for name, m in model.named_modules() if "Dropout" in type(m).__name__}
    assert drops == {
        "blocks.0.dropout": (nn.Dropout2d, 0.25),
        "head.dropout1": (nn.Dropout, 0.5),
        "head.dropout2": (nn.Dropout, 0.5),
    }


def test_avg_pooling():
    assert isinstance(
        build_cnn((1, 4, 4), 2, blocks=[BlockSpec(2, pool=2, pool_type="avg")]).blocks[0].pool, nn.AvgPool2d
    )


@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_same_padding_of_an_even_kernel_keeps_the_size():
    model = build_cnn((1, 5, 5), 2, blocks=[BlockSpec(2, 4)])
    assert model.blocks(torch.randn(1, 1, 5, 5)).shape == (1, 2, 5, 5)


@pytest.mark.parametrize(
    ("input_shape", "blocks", "expected"),
    [
        (
            (1, 8, 8),
            [BlockSpec(4, pool=2), BlockSpec(4, 7, padding="valid")],
            "model.blocks[1]: Conv2d has a kernel of 7 x 7, larger than its input (N, 4, 4, 4); "
            "make kernel_size smaller, add padding, or pool and stride less before it",
        ),
        (
            (1, 8, 8),
            [BlockSpec(4, 9, padding=0, stride=2)],
            "model.blocks[0]: Conv2d has a kernel of 9 x 9, larger than its input (N, 1, 8, 8)",
        ),
        (
            (1, 8, 8),
            [BlockSpec(4, 11, padding=1)],
            "larger than its input (N, 1, 8, 8), 10 x 10 with padding",
        ),
        (
            (1, 8, 8),
            [BlockSpec(4, pool=4), BlockSpec(4, pool=4)],
            "model.blocks[1].pool: MaxPool2d has a window of 4 x 4, larger than its input (N, 4, 2, 2)",
        ),
        (
            (1, 8, 8),
            [BlockSpec(4, 5, stride=2)],
            "model.blocks[0].padding: padding same keeps the size and so needs stride 1, got stride 2",
        ),
        (
            (1, 8, 8),
            [BlockSpec(4, padding="valid", residual=True)],
            "model.blocks[0]: a residual block adds its input to the output of its layers, but the shortcut is "
            "(N, 4, 8, 8) and the layers make (N, 4, 6, 6); choose padding: same (stride 1) or half of an odd "
            "kernel_size",
        ),
        (
            (1, 8, 8),
            [BlockSpec(4), BlockSpec(4, 5, padding=1, stride=2, residual=True, convs=2)],
            "model.blocks[1]: a residual block adds its input to the output of its layers, but the shortcut is "
            "(N, 4, 4, 4) and the layers make (N, 4, 1, 1)",
        ),
        (
            (1, 8, 8),
            [BlockSpec(4), BlockSpec(4, 5, padding=0, convs=3)],
            "model.blocks[1]: Conv2d has a kernel of 5 x 5, larger than its input (N, 4, 4, 4)",
        ),
        (
            (1, 8, 8),
            [BlockSpec(4, pool=8), BlockSpec(4, norm="group")],
            "model.blocks[1]: GroupNorm has 4 groups for (N, 4, 1, 1), one value in each, and would make all outputs "
            "0; use fewer groups",
        ),
        ((30,), [BlockSpec(4)], "model.type: a cnn takes images (N, C, H, W), but a sample of this data set is (30,)"),
    ],
)
def test_a_block_that_does_not_fit_is_named(input_shape, blocks, expected):
    with pytest.raises(ProblemsError) as error:
        build_cnn(input_shape, 3, blocks=blocks, norm_groups=4)
    assert expected in message(error)


@pytest.mark.parametrize("residual", [False, True])
def test_a_relu_after_the_max_pool_is_bitwise_one_before_it(residual: bool) -> None:
    torch.manual_seed(0)
    blocks = [BlockSpec(6, pool=2), BlockSpec(6, pool=2, residual=residual)]
    model = build_cnn((2, 12, 12), 3, blocks=blocks, norm="batch")
    names = [name for name, _ in model.named_modules()]
    assert names.index("blocks.0.pool") < names.index("blocks.0.activation")

    def block(sequence: nn.Module, images: torch.Tensor) -> torch.Tensor:
        convolved = sequence.norm(sequence.conv(images))
        return nn.functional.max_pool2d(
            nn.functional.relu(convolved + images if residual_of(sequence) else convolved), 2
        )

    def residual_of(sequence: nn.Module) -> bool:
        return hasattr(sequence, "shortcut")

    def usual(images: torch.Tensor) -> torch.Tensor:
        return model.head(block(model.blocks[1], block(model.blocks[0], images)))

    images, gradients = torch.randn(16, 2, 12, 12), []
    for forward in (model, usual):
        model.zero_grad()
        outputs = forward(images)
        outputs.square().sum().backward()
        gradients.append([outputs.detach(), *(parameter.grad.clone() for parameter in model.parameters())])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*gradients, strict=True))
