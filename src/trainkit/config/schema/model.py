"""``model:`` the network. Its input and output sizes are inferred from the data."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from trainkit.config.schema.base import Count, NonNegative, Probability, Section, ShortForm, Size, short_by_key
from trainkit.config.schema.pretrained import Timm, Torchvision

Activation = Literal["relu", "leaky_relu", "gelu", "silu", "tanh", "sigmoid", "elu"]
Norm = Literal["none", "batch", "layer"]
ConvNorm = Literal["none", "batch", "group"]
Nonlinearity = Literal["relu", "leaky_relu", "tanh", "linear"]
OutputActivation = Literal["none", "sigmoid", "softmax", "log_softmax"]


class DefaultInit(Section):
    """PyTorch's own initialization of each layer."""

    type: Literal["default"]


class XavierUniform(Section):
    """Glorot and Bengio, 2010 (``torch.nn.init.xavier_uniform_``); biases 0."""

    type: Literal["xavier_uniform"]
    gain: float = Field(1.0, gt=0, description="Scale of the weights.")


class XavierNormal(Section):
    """Glorot and Bengio, 2010 (``torch.nn.init.xavier_normal_``); biases 0."""

    type: Literal["xavier_normal"]
    gain: float = Field(1.0, gt=0, description="Scale of the weights.")


class KaimingUniform(Section):
    """He et al., 2015 (``torch.nn.init.kaiming_uniform_``); biases 0."""

    type: Literal["kaiming_uniform"]
    mode: Literal["fan_in", "fan_out"] = Field("fan_in", description="Whose variance is kept: forward or backward.")
    nonlinearity: Nonlinearity = Field("relu", description="The activation that follows the layers.")


class KaimingNormal(Section):
    """He et al., 2015 (``torch.nn.init.kaiming_normal_``); biases 0."""

    type: Literal["kaiming_normal"]
    mode: Literal["fan_in", "fan_out"] = Field("fan_in", description="Whose variance is kept: forward or backward.")
    nonlinearity: Nonlinearity = Field("relu", description="The activation that follows the layers.")


class Orthogonal(Section):
    """Saxe et al., 2013 (``torch.nn.init.orthogonal_``); biases 0."""

    type: Literal["orthogonal"]
    gain: float = Field(1.0, gt=0, description="Scale of the weights.")


class Whiten(Section):
    """Jordan, 2024: the first convolution makes uncorrelated channels out of the patches of up to 1024 training images,
    the others begin by passing on the channels that they have room for; the rest as ``default``."""

    type: Literal["whiten"]
    eps: float = Field(0.0005, gt=0, description="Added to the variances that the patches are divided by.")


Init = Annotated[
    DefaultInit | XavierUniform | XavierNormal | KaimingUniform | KaimingNormal | Orthogonal | Whiten,
    Field(discriminator="type"),
    ShortForm,
]
_INIT: Any = Field(
    default_factory=lambda: DefaultInit.model_construct(type="default"), description="How the weights start."
)


DropoutSchedule = Literal["constant", "flat_cos"]
_DROPOUT_SCHEDULE: Any = Field(
    None, description="constant, or flat_cos: flat for the first half of the run, then half a cosine wave to 0."
)


class Mlp(Section):
    """Fully connected layers: linear -> norm -> activation -> dropout for each hidden size, then a linear output."""

    type: Literal["mlp"]
    hidden_sizes: list[Count] = Field([128], description="Width of each hidden layer; [] for a linear model.")
    activation: Activation = Field("relu", description="Activation after each hidden layer.")
    norm: Norm = Field("none", description="Normalization before each activation.")
    dropout: Probability = Field(0.0, description="Share of activations dropped after each hidden layer.")
    output: OutputActivation = Field("none", description="Activation of the output; it must fit the loss.")
    init: Init = _INIT
    dropout_schedule: DropoutSchedule | None = _DROPOUT_SCHEDULE


class Block(Section):
    """conv -> norm -> activation -> pool -> dropout; with ``convs: 2``, conv -> norm -> activation come twice."""

    channels: Count = Field(description="Output channels of each convolution.")
    convs: Count = Field(1, description="Convolutions, each with norm and activation; a stride is that of the first.")
    kernel_size: Size = Field(3, description="[H, W] of the kernel, or one number.")
    stride: Size = Field(1, description="Stride of the first convolution.")
    padding: Literal["same", "valid"] | Annotated[int, Field(ge=0)] = Field(
        "same", description="Zeros around the input: same keeps the size (stride 1 only), valid adds none."
    )
    norm: ConvNorm | None = Field(None, description="Instead of the model's norm.")
    activation: Activation | None = Field(None, description="Instead of the model's activation.")
    pool: Count = Field(1, description="Window and stride of the pooling; 1 for none.")
    pool_type: Literal["max", "avg"] = Field("max", description="What the pooling takes of its window.")
    dropout: Probability | None = Field(None, description="Instead of the model's dropout; whole channels are dropped.")
    residual: bool = Field(
        False,
        description="Add the block's input before the last activation (by a 1 x 1 convolution and the norm where the "
        "shape changes).",
    )


class Cnn(Section):
    """Convolution blocks, then a head of fully connected layers."""

    type: Literal["cnn"]
    blocks: list[Block] = Field(min_length=1, description="The convolution blocks, input first.")
    norm: ConvNorm = Field("none", description="Normalization after each convolution.")
    norm_groups: Count = Field(32, description="Groups of channels that norm: group normalizes together.")
    bias: bool = Field(
        True, description="Whether the convolutions add a bias, which a norm after them takes off again."
    )
    activation: Activation = Field("relu", description="Activation in blocks and head.")
    dropout: Probability = Field(0.0, description="Share of channels dropped after each block.")
    global_pool: Literal["none", "avg", "max"] = Field(
        "none", description="Reduce each channel to one value before the head; none flattens."
    )
    head_sizes: list[Count] = Field(
        default_factory=list, description="Widths of hidden layers between blocks and output."
    )
    head_dropout: Probability = Field(0.0, description="Share of activations dropped before each layer of the head.")
    output: OutputActivation = Field("none", description="Activation of the output; it must fit the loss.")
    init: Init = _INIT
    dropout_schedule: DropoutSchedule | None = _DROPOUT_SCHEDULE


class LinearLayer(Section):
    """``torch.nn.Linear``."""

    type: Literal["Linear"]
    in_features: Count | None = Field(None, description="Inferred from the layer before when left out.")
    out_features: Count | None = Field(None, description="May be left out in the last layer: what data and loss need.")
    bias: bool = Field(True, description="Whether a bias is added.")


class Conv2dLayer(Section):
    """``torch.nn.Conv2d``."""

    type: Literal["Conv2d"]
    in_channels: Count | None = Field(None, description="Inferred from the layer before when left out.")
    out_channels: Count = Field(description="Number of output channels.")
    kernel_size: Size = Field(description="[H, W] of the kernel, or one number.")
    stride: Size = Field(1, description="Stride of the kernel.")
    padding: Literal["same", "valid"] | Annotated[int, Field(ge=0)] = Field(0, description="Zeros around the input.")
    dilation: Count = Field(1, description="Distance between kernel elements.")
    groups: Count = Field(1, description="Groups of channels that do not mix.")
    bias: bool = Field(True, description="Whether a bias is added.")


class BatchNorm1dLayer(Section):
    """``torch.nn.BatchNorm1d``."""

    type: Literal["BatchNorm1d"]
    num_features: Count | None = Field(None, description="Inferred from the layer before when left out.")
    eps: float = Field(1e-5, gt=0, description="Added to the variance.")
    momentum: Probability = Field(0.1, description="Weight of the new batch in the running statistics.")


class BatchNorm2dLayer(Section):
    """``torch.nn.BatchNorm2d``."""

    type: Literal["BatchNorm2d"]
    num_features: Count | None = Field(None, description="Inferred from the layer before when left out.")
    eps: float = Field(1e-5, gt=0, description="Added to the variance.")
    momentum: Probability = Field(0.1, description="Weight of the new batch in the running statistics.")


class LayerNormLayer(Section):
    """``torch.nn.LayerNorm`` over the last dimension."""

    type: Literal["LayerNorm"]
    normalized_shape: Count | None = Field(None, description="Inferred from the layer before when left out.")
    eps: float = Field(1e-5, gt=0, description="Added to the variance.")


class GroupNormLayer(Section):
    """``torch.nn.GroupNorm``."""

    type: Literal["GroupNorm"]
    num_groups: Count = Field(description="Groups of channels that are normalized together; it divides num_channels.")
    num_channels: Count | None = Field(None, description="Inferred from the layer before when left out.")
    eps: float = Field(1e-5, gt=0, description="Added to the variance.")


class ReluLayer(Section):
    """``torch.nn.ReLU``."""

    type: Literal["ReLU"]


class LeakyReluLayer(Section):
    """``torch.nn.LeakyReLU``."""

    type: Literal["LeakyReLU"]
    negative_slope: NonNegative = Field(0.01, description="Slope below zero.")


class EluLayer(Section):
    """``torch.nn.ELU``."""

    type: Literal["ELU"]
    alpha: float = Field(1.0, gt=0, description="Minus the value far below zero.")


class GeluLayer(Section):
    """``torch.nn.GELU``."""

    type: Literal["GELU"]
    approximate: Literal["none", "tanh"] = Field("none", description="Exact, or the tanh formula.")


class SiluLayer(Section):
    """``torch.nn.SiLU``."""

    type: Literal["SiLU"]


class SigmoidLayer(Section):
    """``torch.nn.Sigmoid``."""

    type: Literal["Sigmoid"]


class TanhLayer(Section):
    """``torch.nn.Tanh``."""

    type: Literal["Tanh"]


class MaxPool2dLayer(Section):
    """``torch.nn.MaxPool2d``."""

    type: Literal["MaxPool2d"]
    kernel_size: Size = Field(description="[H, W] of the window, or one number.")
    stride: Size | None = Field(None, description="The window's size when left out.")
    padding: int = Field(0, ge=0, description="Padding on every side.")


class AvgPool2dLayer(Section):
    """``torch.nn.AvgPool2d``."""

    type: Literal["AvgPool2d"]
    kernel_size: Size = Field(description="[H, W] of the window, or one number.")
    stride: Size | None = Field(None, description="The window's size when left out.")
    padding: int = Field(0, ge=0, description="Padding on every side.")


class AdaptiveAvgPool2dLayer(Section):
    """``torch.nn.AdaptiveAvgPool2d``."""

    type: Literal["AdaptiveAvgPool2d"]
    output_size: Size = Field(description="[H, W] of the output, or one number.")


class DropoutLayer(Section):
    """``torch.nn.Dropout``."""

    type: Literal["Dropout"]
    p: Probability = Field(0.5, description="Share of elements dropped.")


class Dropout2dLayer(Section):
    """``torch.nn.Dropout2d``."""

    type: Literal["Dropout2d"]
    p: Probability = Field(0.5, description="Share of channels dropped.")


class FlattenLayer(Section):
    """``torch.nn.Flatten``."""

    type: Literal["Flatten"]


class SoftmaxLayer(Section):
    """``torch.nn.Softmax`` over the classes."""

    type: Literal["Softmax"]


class LogSoftmaxLayer(Section):
    """``torch.nn.LogSoftmax`` over the classes."""

    type: Literal["LogSoftmax"]


_TorchLayer = (
    LinearLayer
    | Conv2dLayer
    | BatchNorm1dLayer
    | BatchNorm2dLayer
    | LayerNormLayer
    | GroupNormLayer
    | ReluLayer
    | LeakyReluLayer
    | EluLayer
    | GeluLayer
    | SiluLayer
    | SigmoidLayer
    | TanhLayer
    | MaxPool2dLayer
    | AvgPool2dLayer
    | AdaptiveAvgPool2dLayer
    | DropoutLayer
    | Dropout2dLayer
    | FlattenLayer
    | SoftmaxLayer
    | LogSoftmaxLayer
)
TorchLayer = Annotated[_TorchLayer, Field(discriminator="type"), ShortForm]


class ResidualLayers(Section):
    """Layers whose input is added to their output; ``residual: [layers]`` is enough."""

    type: Literal["residual"] = "residual"
    residual: list[TorchLayer] = Field(min_length=1, description="The layers, input first.")
    shortcut: list[TorchLayer] = Field(
        default_factory=list, description="Layers that the input passes before it is added, where the shape changes."
    )


Layer = Annotated[_TorchLayer | ResidualLayers, Field(discriminator="type"), ShortForm, short_by_key("residual")]


class Sequential(Section):
    """A list of ``torch.nn`` layers by their PyTorch names and arguments, and of residual parts made of them."""

    type: Literal["sequential"]
    layers: list[Layer] = Field(min_length=1, description="The layers, input first.")
    init: Init = _INIT
    dropout_schedule: DropoutSchedule | None = _DROPOUT_SCHEDULE

    def torch_layers(self) -> Iterator[tuple[str, Any]]:
        """All ``torch.nn`` layers with their config keys, those of residual parts too."""
        for index, layer in enumerate(self.layers):
            key = f"model.layers[{index}]"
            if isinstance(layer, ResidualLayers):
                yield from ((f"{key}.residual[{i}]", inner) for i, inner in enumerate(layer.residual))
                yield from ((f"{key}.shortcut[{i}]", inner) for i, inner in enumerate(layer.shortcut))
            else:
                yield key, layer


class TabularMlp(Section):
    """RealMLP (Holzmueller et al., 2024) for tables: embeddings of numbers and categories, learned scales of features,
    then linear -> activation -> dropout for each hidden size. Layers have learning rates of their own: the optimizer's
    times 0.1 (embeddings of numbers, activations, biases), 6 (scales) or 1; for values, five times that."""

    type: Literal["tabular_mlp"]
    hidden_sizes: list[Count] = Field([256, 256, 256], description="Width of each hidden layer.")
    activation: Literal["auto", "selu", "mish", "relu", "gelu", "silu"] = Field(
        "auto",
        description="Activation after each hidden layer, with a learned strength; auto: selu for classes, mish "
        "for values.",
    )
    dropout: Probability = Field(0.15, description="Share of activations dropped after each hidden layer.")
    dropout_schedule: DropoutSchedule = Field(
        "flat_cos",
        description="constant, or flat_cos: flat for the first half of the run, then half a cosine wave to 0.",
    )
    members: Count = Field(
        1,
        description="Members of an ensemble in one network (TabM, Gorishniy et al., 2024; 32 there), which share most "
        "weights; the answer is the mean of their probabilities or values.",
    )
    max_one_hot: int = Field(
        9, ge=0, description="Columns of up to so many categories get a column for each; others get embeddings."
    )
    embedding_dim: Count = Field(8, description="Numbers that a category of a larger column becomes.")
    frequencies: Count = Field(16, description="Cosines in the embedding of a number.")
    frequency_scale: NonNegative = Field(0.1, description="Standard deviation of their first frequencies.")


Model = Annotated[Mlp | Cnn | Sequential | TabularMlp | Torchvision | Timm, Field(discriminator="type"), ShortForm]
