"""``optimizer:`` and ``scheduler:``, with PyTorch's own argument names and defaults."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from trainkit.config.schema.base import Count, Fraction, NonNegative, Positive, Probability, Section, ShortForm, Steps

Betas = Annotated[list[Fraction], Field(min_length=2, max_length=2)]


class _Optimizer(Section):
    """Properties of every optimizer. Each also has ``states_per_weight``, the numbers that it keeps for a weight."""

    @property
    def has_momentum(self) -> bool:
        """Whether there is a momentum or a first beta, which one_cycle moves against the learning rate."""
        return hasattr(self, "momentum") or hasattr(self, "betas")

    @property
    def moves_momentum(self) -> bool:
        """Whether one_cycle moves the momentum: one that the user set to 0 stays 0."""
        return self.has_momentum and getattr(self, "momentum", 1.0) > 0


class ParameterGroup(Section):
    """Parameters with a learning rate or a weight decay of their own."""

    modules: list[str] = Field(
        min_length=1,
        description="Names of modules, with all that is in them, or of parameters (blocks.0, head.output.bias); "
        "trainkit inspect lists them.",
    )
    lr_scale: Positive = Field(1.0, description="Factor on the learning rate of the schedule.")
    weight_decay: NonNegative | None = Field(None, description="Instead of the optimizer's weight decay.")


class _InGroups(_Optimizer):
    """An optimizer whose parameters may be in groups."""

    no_decay: Literal["none", "norm_and_bias"] | None = Field(
        None, description="Parameters without weight decay: none, or those of norm layers and all biases."
    )
    weight_decay_schedule: Literal["constant", "flat_cos"] | None = Field(
        None, description="constant, or flat_cos: flat for the first half of the run, then half a cosine wave to 0."
    )
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None,
        description="Factor on the learning rate for each layer below the head, which learns at the schedule's: 0.75.",
    )
    groups: list[ParameterGroup] | None = Field(
        None, description="Parameters with a learning rate or a weight decay of their own; none when left out."
    )


class Sgd(_InGroups):
    """``torch.optim.SGD``."""

    type: Literal["sgd"]
    lr: Positive = Field(0.001, description="Learning rate.")
    momentum: NonNegative = Field(0.0, description="Momentum factor.")
    dampening: NonNegative = Field(0.0, description="Dampening of the momentum.")
    weight_decay: NonNegative = Field(0.0, description="L2 penalty.")
    nesterov: bool = Field(False, description="Nesterov momentum; needs momentum > 0 and dampening 0.")

    @property
    def states_per_weight(self) -> int:
        return int(self.momentum > 0)


class Adam(_InGroups):
    """``torch.optim.Adam`` (Kingma and Ba, 2014)."""

    type: Literal["adam"]
    lr: Positive = Field(0.001, description="Learning rate.")
    betas: Betas = Field([0.9, 0.999], description="Decay of the running averages of gradient and square.")
    eps: NonNegative = Field(1e-8, description="Added to the denominator.")
    weight_decay: NonNegative = Field(0.0, description="L2 penalty.")
    amsgrad: bool = Field(False, description="The variant of Reddi et al., 2018.")

    @property
    def states_per_weight(self) -> int:
        return 2 + self.amsgrad


class AdamW(_InGroups):
    """``torch.optim.AdamW`` (Loshchilov and Hutter, 2017)."""

    type: Literal["adamw"]
    lr: Positive = Field(0.001, description="Learning rate.")
    betas: Betas = Field([0.9, 0.999], description="Decay of the running averages of gradient and square.")
    eps: NonNegative = Field(1e-8, description="Added to the denominator.")
    weight_decay: NonNegative = Field(0.01, description="Decoupled weight decay.")
    amsgrad: bool = Field(False, description="The variant of Reddi et al., 2018.")

    @property
    def states_per_weight(self) -> int:
        return 2 + self.amsgrad


class NAdam(_InGroups):
    """``torch.optim.NAdam`` (Dozat, 2016): Adam with Nesterov momentum."""

    type: Literal["nadam"]
    lr: Positive = Field(0.002, description="Learning rate.")
    betas: Betas = Field([0.9, 0.999], description="Decay of the running averages of gradient and square.")
    eps: NonNegative = Field(1e-8, description="Added to the denominator.")
    weight_decay: NonNegative = Field(0.0, description="L2 penalty, or decoupled weight decay.")
    momentum_decay: NonNegative = Field(0.004, description="How fast the momentum rises to the first beta.")
    decoupled_weight_decay: bool = Field(False, description="Decay the weights themselves, as adamw does.")
    states_per_weight: ClassVar[int] = 2


class RAdam(_InGroups):
    """``torch.optim.RAdam`` (Liu et al., 2019): Adam with a warm-up of its own, before its averages are reliable."""

    type: Literal["radam"]
    lr: Positive = Field(0.001, description="Learning rate.")
    betas: Betas = Field([0.9, 0.999], description="Decay of the running averages of gradient and square.")
    eps: NonNegative = Field(1e-8, description="Added to the denominator.")
    weight_decay: NonNegative = Field(0.0, description="L2 penalty, or decoupled weight decay.")
    decoupled_weight_decay: bool = Field(False, description="Decay the weights themselves, as adamw does.")
    states_per_weight: ClassVar[int] = 2


class Adafactor(_InGroups):
    """``torch.optim.Adafactor`` (Shazeer and Stern, 2018): averages of rows and columns in place of one a weight."""

    type: Literal["adafactor"]
    lr: Positive = Field(0.01, description="Upper bound of the learning rate, which falls as 1 / sqrt(step).")
    beta2_decay: Annotated[float, Field(le=0)] = Field(-0.8, description="How the average of the square slows down.")
    eps: Annotated[list[NonNegative | None], Field(min_length=2, max_length=2)] = Field(
        [None, 0.001], description="Added to the square of the gradient, null: float32's; least scale of a weight."
    )
    d: Annotated[float, Field(ge=1)] = Field(1.0, description="Bound of the root mean square of an update.")
    weight_decay: NonNegative = Field(0.0, description="Decoupled weight decay.")
    states_per_weight: ClassVar[int] = 1
    """At most: for a matrix rows and columns, for a kernel of 3 x 3 two thirds."""


class Muon(_InGroups):
    """``torch.optim.Muon`` (Jordan et al., 2024) for hidden matrices, ``torch.optim.AdamW`` for all other parameters.

    Matrices but those of the first and the last layer, and embeddings; weights of convolutions are none.
    """

    type: Literal["muon"]
    lr: Positive = Field(0.001, description="Learning rate, of both.")
    weight_decay: NonNegative = Field(0.1, description="Decoupled weight decay, of both.")
    momentum: Fraction = Field(0.95, description="Momentum factor of Muon.")
    nesterov: bool = Field(True, description="Nesterov momentum of Muon.")
    ns_steps: Annotated[int, Field(ge=1, le=99)] = Field(
        5, description="Steps of the iteration (Newton and Schulz) that makes an update orthogonal."
    )
    adjust_lr_fn: Literal["original", "match_rms_adamw"] = Field(
        "match_rms_adamw",
        description="Factor on the learning rate by the shape of a matrix; match_rms_adamw makes updates as large as "
        "AdamW's, so that one learning rate fits both. PyTorch's default is original.",
    )
    betas: Betas = Field([0.9, 0.999], description="AdamW's decay of the running averages of gradient and square.")
    states_per_weight: ClassVar[int] = 2
    """At most: Muon keeps one."""


class RmsProp(_InGroups):
    """``torch.optim.RMSprop`` (Hinton, 2012)."""

    type: Literal["rmsprop"]
    lr: Positive = Field(0.01, description="Learning rate.")
    alpha: Probability = Field(0.99, description="Decay of the running average of the square.")
    eps: NonNegative = Field(1e-8, description="Added to the denominator.")
    weight_decay: NonNegative = Field(0.0, description="L2 penalty.")
    momentum: NonNegative = Field(0.0, description="Momentum factor.")
    centered: bool = Field(False, description="Normalize by the variance instead of the square.")

    @property
    def states_per_weight(self) -> int:
        return 1 + (self.momentum > 0) + self.centered


class Adagrad(_InGroups):
    """``torch.optim.Adagrad`` (Duchi et al., 2011)."""

    type: Literal["adagrad"]
    lr: Positive = Field(0.01, description="Learning rate.")
    lr_decay: NonNegative = Field(0.0, description="Decay of the learning rate.")
    weight_decay: NonNegative = Field(0.0, description="L2 penalty.")
    initial_accumulator_value: NonNegative = Field(0.0, description="Start of the sum of squares.")
    eps: NonNegative = Field(1e-10, description="Added to the denominator.")
    states_per_weight: ClassVar[int] = 1


class Lbfgs(_Optimizer):
    """``torch.optim.LBFGS``: evaluates the loss several times a step; meant for small data and large batches."""

    type: Literal["lbfgs"]
    lr: Positive = Field(1.0, description="Learning rate.")
    max_iter: Count = Field(20, description="Largest number of iterations a step.")
    max_eval: Count | None = Field(None, description="Largest number of loss evaluations a step; 1.25 x max_iter.")
    tolerance_grad: NonNegative = Field(1e-7, description="Stop at a gradient smaller than this.")
    tolerance_change: NonNegative = Field(1e-9, description="Stop at a change smaller than this.")
    history_size: Count = Field(100, description="Number of updates kept.")
    line_search_fn: Literal["strong_wolfe"] | None = Field(None, description="Line search; none takes lr as it is.")

    @property
    def states_per_weight(self) -> int:
        return 2 * self.history_size + 3


Optimizer = Annotated[
    Sgd | Adam | AdamW | NAdam | RAdam | Adafactor | RmsProp | Adagrad | Muon | Lbfgs,
    Field(discriminator="type"),
    ShortForm,
]


class Warmup(Section):
    """Every scheduler can start with a linear warm-up (``torch.optim.lr_scheduler.LinearLR``)."""

    warmup: Steps | None = Field(None, description="Length of the linear warm-up (2ep, 500st); none when left out.")
    warmup_start_factor: Annotated[float, Field(gt=0, le=1)] = Field(
        0.01, description="Share of the learning rate at the first step of the warm-up."
    )


class Constant(Warmup):
    """The optimizer's learning rate throughout."""

    type: Literal["constant"]


class Step(Warmup):
    """``StepLR``: multiply by gamma at regular intervals."""

    type: Literal["step"]
    step_size: Steps = Field(description="Length of an interval (epochs, or 500st).")
    gamma: Positive = Field(0.1, description="Factor at the end of each interval.")


class MultiStep(Warmup):
    """``MultiStepLR``: multiply by gamma at each milestone."""

    type: Literal["multi_step"]
    milestones: list[Steps] = Field(min_length=1, description="Where the factor applies, in rising order.")
    gamma: Positive = Field(0.1, description="Factor at each milestone.")


class Exponential(Warmup):
    """``ExponentialLR``: multiply by gamma after every epoch."""

    type: Literal["exponential"]
    gamma: Positive = Field(0.95, description="Factor after each epoch.")


class Cosine(Warmup):
    """``CosineAnnealingLR``, updated at every optimizer step (Loshchilov and Hutter, 2016)."""

    type: Literal["cosine"]
    T_max: Steps | None = Field(None, description="Length of the descent; the rest of the run when left out.")
    eta_min: NonNegative = Field(0.0, description="Learning rate at the end.")


class OneCycle(Warmup):
    """``OneCycleLR``, updated at every optimizer step (Smith and Topin, 2017); max_lr is the optimizer's lr."""

    type: Literal["one_cycle"]
    pct_start: Annotated[float, Field(gt=0, lt=1)] = Field(0.3, description="Share of the run in which lr rises.")
    anneal_strategy: Literal["cos", "linear"] = Field("cos", description="Shape of the two halves.")
    div_factor: Positive = Field(25.0, description="Peak lr / lr at the first step.")
    final_div_factor: Positive = Field(1e4, description="Lr at the first step / lr at the last.")
    cycle_momentum: bool = Field(True, description="Move the momentum (or the first beta) against the learning rate.")
    base_momentum: Fraction = Field(0.85, description="Momentum at the peak of the learning rate.")
    max_momentum: Fraction = Field(0.95, description="Momentum at both ends.")


class CosLog(Warmup):
    """Cosine waves between 0 and lr, each twice as long as the one before (RealMLP: Holzmüller et al., 2024)."""

    type: Literal["coslog"]
    cycles: Annotated[int, Field(ge=1, le=20)] = Field(4, description="Number of waves in the run.")


class ReduceOnPlateau(Warmup):
    """``ReduceLROnPlateau``: multiply by factor when the monitored metric has stopped improving."""

    type: Literal["reduce_on_plateau"]
    monitor: str | None = Field(None, description="Metric to watch; the checkpoint's when left out.")
    factor: Annotated[float, Field(gt=0, lt=1)] = Field(0.1, description="Factor at each reduction.")
    patience: int = Field(10, ge=0, description="Epochs without improvement that are allowed.")
    threshold: NonNegative = Field(1e-4, description="Smallest change that counts as an improvement.")
    threshold_mode: Literal["rel", "abs"] = Field("rel", description="Whether the threshold is relative.")
    cooldown: int = Field(0, ge=0, description="Epochs to wait after a reduction.")
    min_lr: NonNegative = Field(0.0, description="Lower bound of the learning rate.")


Scheduler = Annotated[
    Constant | Step | MultiStep | Exponential | Cosine | OneCycle | CosLog | ReduceOnPlateau,
    Field(discriminator="type"),
    ShortForm,
]
