"""``training:``, ``checkpoint:``, ``logging:`` and ``export:``: how a run goes and what it leaves behind."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from trainkit.config.schema.base import (
    Count,
    Interval,
    NonNegative,
    Positive,
    Probability,
    Section,
    ShortForm,
    Start,
    Steps,
)


class EarlyStopping(Section):
    """Stop when the monitored metric has not improved for a while."""

    patience: Count = Field(5, description="Epochs without improvement before the run stops.")
    min_delta: NonNegative = Field(
        0.0,
        description="Smallest change that counts as an improvement; at 0, an equal value with a lower loss counts too.",
    )
    monitor: str | None = Field(None, description="Metric to watch; the checkpoint's when left out.")


class Ema(Section):
    """Keep an exponential moving average of the weights; evaluation, checkpoints' scores and exports use it."""

    decay: Annotated[float, Field(gt=0, lt=1)] | Literal["auto"] = Field(
        0.999, description="Weight of the old average at each step; auto: 1 - 20 / steps of the run."
    )


class Swa(Section):
    """Stochastic weight averaging (Izmailov et al., 2018): the plain mean of the weights of the end of the run.

    Evaluation, checkpoints' scores and exports use it from its start on.
    """

    type: Literal["swa"]
    start: Start = Field("75%", description="From where on weights are averaged (75% of the run, 60ep, 5000st).")
    every: Steps = Field(1, description="Distance of the weights that are averaged (1ep, 500st).")


class _Mix(Section):
    """Properties of every way to mix. Training accuracy is then against the class with the larger share."""

    p: Probability = Field(1.0, description="Share of the samples that are mixed.")
    off_for_last: Steps | None = Field(
        None, description="The end of the run that trains on samples as they are (2ep, 500st); none when left out."
    )


class Mixup(_Mix):
    """Mixup (Zhang et al., 2018): two samples are added up in shares, and so are the losses of their classes."""

    type: Literal["mixup"]
    mixup_alpha: Positive = Field(0.2, description="The shares are drawn from Beta(alpha, alpha), one a sample.")


class CutMix(_Mix):
    """Cutmix (Yun et al., 2019): a box of another picture covers a part; its area is the share of the other class."""

    type: Literal["cutmix"]
    cutmix_alpha: Positive = Field(1.0, description="The areas are drawn from Beta(alpha, alpha), one a sample.")


class MixupCutMix(_Mix):
    """Mixup or cutmix, drawn for each sample."""

    type: Literal["mixup_cutmix"]
    mixup_alpha: Positive = Field(0.2, description="The shares are drawn from Beta(alpha, alpha), one a sample.")
    cutmix_alpha: Positive = Field(1.0, description="The areas are drawn from Beta(alpha, alpha), one a sample.")
    switch_p: Probability = Field(0.5, description="Share of the samples that cutmix takes.")


Mix = Annotated[Mixup | CutMix | MixupCutMix, Field(discriminator="type"), ShortForm]


class BalancedSampler(Section):
    """Rare classes come more often; of each class, all samples come before one comes again. An epoch stays as long."""

    type: Literal["balanced"]
    power: Probability = Field(
        1.0, description="The share of a class is proportional to its count ** (1 - power): 1 for equal shares."
    )


class StopOnNonFinite(Section):
    """Stop the run before a NaN or Inf reaches the weights."""

    type: Literal["stop"]


class SkipNonFinite(Section):
    """Leave out steps with a NaN or Inf, up to a limit."""

    type: Literal["skip"]
    limit: Count = Field(10, description="Steps that may be left out over the run; the next one stops it.")


NonFinite = Annotated[StopOnNonFinite | SkipNonFinite, Field(discriminator="type"), ShortForm]


class Training(Section):
    """The loop."""

    epochs: Count = Field(10, description="Passes over the training split.")
    batch_size: Count = Field(64, description="Samples of an optimizer step, over all its pieces.")
    eval_batch_size: Count | Literal["auto"] = Field("auto", description="Samples a forward pass of evaluation sees.")
    accumulation_steps: Count = Field(
        1,
        description="Pieces that each batch is computed in, to save memory. The gradient is the batch's, but batch "
        "norm takes its statistics over a piece, and dropout draws for each piece.",
    )
    drop_last: bool | Literal["auto"] = Field(
        False, description="Leave out the last batch of an epoch where it is smaller; auto: where there are others."
    )
    shuffle: bool = Field(True, description="Draw a new order of the training samples for each epoch.")
    sampler: Annotated[BalancedSampler, ShortForm] | None = Field(
        None, description="How often a training sample comes in an epoch; once when left out."
    )
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = Field(
        "auto",
        description="Number format of the forward pass: fp32, tf32 (CUDA rounds factors of products to 10 bits), or "
        "bf16 or fp16 by autocast; auto prints its choice and the reason.",
    )
    deterministic: bool = Field(
        True,
        description="Take kernels that give the same numbers each time (CUDA); false lets cuDNN try which is fastest.",
    )
    residency: Literal["auto", "device", "host", "map"] = Field(
        "auto",
        description="Where samples are kept: on the device, in host memory, or in the file of the cache; auto looks at "
        "what is free beside the model.",
    )
    clip_grad_norm: Positive | None = Field(None, description="Largest L2 norm of the gradient.")
    clip_grad_value: Positive | None = Field(None, description="Largest absolute value of a gradient element.")
    early_stopping: EarlyStopping | None = Field(None, description="Stop early; never when left out.")
    mix: Mix | None = Field(
        None,
        description="Mix each training sample with another of its batch, and their classes; not done when left out.",
    )
    ema: Ema | None = Field(None, description="Average the weights; not done when left out.")
    average: Annotated[Swa, ShortForm] | None = Field(
        None, description="Average the weights of the end of the run; not done when left out."
    )
    on_non_finite: NonFinite = Field(
        default_factory=lambda: StopOnNonFinite.model_construct(type="stop"),
        description="What happens at a NaN or Inf in the loss or a gradient.",
    )
    compile: bool | Literal["auto", "default", "reduce-overhead", "max-autotune"] = Field(
        "auto",
        description="A mode of torch.compile for the model, true for its default mode; auto makes the whole step of a "
        "small model one CUDA graph, compiles nothing else, and prints its choice and the reason.",
    )
    channels_last: bool | Literal["auto"] = Field(
        "auto", description="Memory layout of images; auto is channels-last for models with convolutions."
    )
    num_workers: int = Field(
        0, ge=0, le=256, description="Processes that load samples where these neither fit in memory nor can be cached."
    )
    num_threads: Count | Literal["auto"] = Field(
        "auto",
        description="CPU threads of an operation; auto is one for a small model, else one for each "
        "physical core that may be used.",
    )


class Distributed(Section):
    """How the processes of a run work together, where there are several. Nothing here changes what is trained."""

    backend: Literal["auto", "gloo", "nccl"] = Field(
        "auto", description="What carries tensors between processes; auto is nccl on CUDA, else gloo."
    )
    timeout: Positive = Field(60.0, description="Seconds that a process waits for the others before the run ends.")
    reduce: Literal["exact", "fast"] = Field(
        "exact",
        description="How gradients are added: exact has the bits of one process, for any number of them; fast is one "
        "all_reduce, close to them.",
    )


class Checkpoint(Section):
    """What is saved, and which checkpoint is the best."""

    monitor: str | Literal["auto"] = Field(
        "auto",
        description="Metric that decides which checkpoint is best: val_accuracy, val_roc_auc, val_loss, val_rmse, ...; "
        "of equal values the one with the lower loss of that split wins.",
    )
    mode: Literal["auto", "min", "max"] = Field("auto", description="Whether lower or higher is better; auto knows.")
    every: Interval = Field(1, description="How often the state is saved (1ep, 200st, 10min).")
    keep_last: Count = Field(2, description="Newest checkpoints that are kept; the best is always kept too.")


class Logging(Section):
    """What is written down while training."""

    every: Count = Field(50, description="Optimizer steps between two step lines in metrics.jsonl.")
    metrics: list[str] | None = Field(
        None,
        description="Metrics of the validation to compute and write down too: val_roc_auc, val_average_precision, "
        "val_balanced_accuracy, val_log_loss, val_mcc.",
    )
    tensorboard: bool = Field(False, description="Also write TensorBoard event files (extra: tensorboard).")
    plots: bool = Field(True, description="Draw learning curves at the end.")

    tracker_packages: ClassVar[dict[str, str]] = {"tensorboard": "tensorboard"}
    """By the key that switches a tracker on: the package that it needs."""

    @property
    def trackers(self) -> list[str]:
        """The keys of the trackers that are switched on."""
        return [key for key in self.tracker_packages if getattr(self, key)]


class Export(Section):
    """What is exported from the best checkpoint at the end of training."""

    torchscript: bool = Field(False, description="Write a TorchScript program.")
    method: Literal["script", "trace"] = Field("script", description="How TorchScript is made.")
