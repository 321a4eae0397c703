"""trainkit from Python: what the commands do, as functions. ``import trainkit`` offers what is in ``__all__``.

Each function leaves PyTorch's settings, its generators, warning filters and signal handlers as they were, and prints
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from trainkit.builders import TrainedModel, open_trained
from trainkit.callbacks import Log, OnProgress, Progress, ShouldStop, calling, one_training, stopped_by_ctrl_c
from trainkit.config import LoadedConfig, at_data_root, load_config, load_sweep
from trainkit.errors import UserError
from trainkit.exports import Format, InputDtype, Method, Quantization
from trainkit.plugins import Plugin, active, using
from trainkit.runtime import use_tf32
from trainkit.wording import closest, first_lines
from trainkit.workflows import cross_validation
from trainkit.workflows import evaluate as evaluating
from trainkit.workflows import export as exporting
from trainkit.workflows import predict as predicting
from trainkit.workflows import train as training
from trainkit.workflows.cross_validation import CvResult
from trainkit.workflows.evaluate import EvalResult
from trainkit.workflows.export import ExportResult
from trainkit.workflows.find import find_checkpoint
from trainkit.workflows.lr_find import SEEDS, STEPS, LrFindResult
from trainkit.workflows.lr_find import find as find_rate
from trainkit.workflows.lr_find.search import search
from trainkit.workflows.predict import Prediction, Predictor
from trainkit.workflows.train import TrainResult

if TYPE_CHECKING:
    from trainkit.workflows.sweep import SweepResult

__all__ = [
    "CvResult",
    "EvalResult",
    "ExportResult",
    "LoadedConfig",
    "LrFindResult",
    "Prediction",
    "Progress",
    "TrainResult",
    "TrainedModel",
    "cross_validate",
    "evaluate",
    "export",
    "load_config",
    "load_model",
    "lr_find",
    "predict",
    "resume",
    "sweep",
    "train",
]

Config = LoadedConfig | str | Path | Mapping[str, Any]
Plugins = Sequence[Plugin | str]
"""Plug-ins whose parts a config or a checkpoint may name, or the names of their modules."""
Checkpoint = str | Path | TrainResult | None
"""A file, a run by its folder or a part of its name, what ``train`` returned; None for the newest run."""


def train(
    config: Config,
    *,
    overrides: Sequence[str] = (),
    config_dir: str | Path | None = None,
    data_root: str | Path | None = None,
    runs_dir: str | Path = "runs",
    resume: str | Path | Literal["auto"] | None = None,
    init_from: str | Path | None = None,
    allow_change: Sequence[str] = (),
    plugins: Plugins = (),
    log: Log | None = None,
    progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
) -> TrainResult:
    """Train the model of a config, in a new run folder under ``runs_dir``. One training runs at a time.

    Args:
        config: a file, the name of a shipped config, a dict with the same keys, or what ``load_config`` returned.
        overrides: changes to a file or a dict, as after ``--set``: ``optimizer.lr=0.1``.
        config_dir: of a dict: the folder that its paths are relative to; None for the current one.
        data_root: where the data are now, in place of the config's ``root``, or of the folder of its tables.
        resume: a checkpoint to resume from, or the last one of a run, in a new folder that begins with its history; or
            ``auto``: go on with the newest unfinished run of this config, in its own folder, where there is one.
        init_from: weights to start from: a checkpoint, the best of a run, a state_dict or a safetensors file.
        allow_change: config keys that may differ from the checkpoint's although they change the result.
        plugins: plug-ins whose parts the config may name, or the names of their modules.
        log: called with each line of text; None for ``logging.getLogger("trainkit")``.
        progress: called with a ``Progress`` at each logging step and each epoch (``logging.every`` in the config), and
            while images are decoded.
        should_stop: asked after each step; True saves the state and raises ``Interrupted``.

    Raises:
        UserError: the config, the data or the checkpoint are wrong; nothing was written.
        Interrupted: ``should_stop`` asked for it; the state is saved.
        KeyboardInterrupt: Ctrl-C, or a notebook's stop; the state is saved after the running step.
        TrainkitError: the run failed; its checkpoints are intact.

    An exception of a callback stops the training as ``should_stop`` does, and is raised then.
    """
    given = [*plugins, *(config.config.plugins if isinstance(config, LoadedConfig) else ())]
    with using(given), one_training(log), calling(log, progress, should_stop) as frontend, stopped_by_ctrl_c(frontend):
        loaded = _load(config, overrides, config_dir)
        for note in loaded.notes:
            frontend.say(f"note: {note}")
        result = training.train(
            replace(loaded, config=at_data_root(loaded.config, data_root)),
            runs_dir=runs_dir,
            resume=resume,
            init_from=init_from,
            allow_change=allow_change,
            frontend=frontend,
        )
    assert result is not None, "one process"
    return result


def lr_find(
    config: Config,
    *,
    overrides: Sequence[str] = (),
    config_dir: str | Path | None = None,
    data_root: str | Path | None = None,
    steps: int = STEPS,
    seeds: int = SEEDS,
    plugins: Plugins = (),
    log: Log | None = None,
    progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
) -> LrFindResult:
    """Find a learning rate: train while it rises from 1e-7 to 10, and see where the loss falls. Nothing is written.

    Args:
        steps: training steps of each seed, 100 at least.
        seeds: how often the rate rises, each time from new first weights; the median of what they find is ``lr``.

    The other arguments as for ``train``.

    Raises:
        UserError: the config or the data are wrong, or the optimizer has no learning rate to search for.
        TrainkitError: the loss does not fall, or diverges before it does.
        Interrupted, KeyboardInterrupt: as for ``train``.
    """
    for name, value, least in (("steps", steps, 100), ("seeds", seeds, 1)):
        if value < least:
            raise UserError(f"{name}: expected {least} or more, got {value}")
    given = [*plugins, *(config.config.plugins if isinstance(config, LoadedConfig) else ())]
    with (
        using(given),
        one_training(log),
        calling(log, progress, should_stop, stage="learning rates") as frontend,
        stopped_by_ctrl_c(frontend),
    ):
        loaded = _load(config, overrides, config_dir)
        loaded = replace(loaded, config=at_data_root(loaded.config, data_root))
        return find_rate(search(loaded, steps=steps, seeds=seeds, frontend=frontend))


def _load(config: Config, overrides: Sequence[str], config_dir: str | Path | None) -> LoadedConfig:
    if not isinstance(config, LoadedConfig | str | Path | Mapping):
        raise UserError(f"config: expected a file, a dict or what load_config returned, got {type(config).__name__}")
    if not isinstance(config, LoadedConfig):
        return load_config(config, overrides=_listed("overrides", overrides), config_dir=config_dir)
    for name, value in (("overrides", overrides), ("config_dir", config_dir)):
        if value:
            raise UserError(
                f"{name} go with a file or a dict, and this config is loaded already: give them to load_config"
            )
    return config


def resume(
    run: str | Path | TrainResult | None = None,
    *,
    overrides: Sequence[str] = (),
    unset: Sequence[str] = (),
    data_root: str | Path | None = None,
    runs_dir: str | Path = "runs",
    allow_change: Sequence[str] = (),
    plugins: Plugins = (),
    log: Log | None = None,
    progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
) -> TrainResult | None:
    """Go on with a run in its own folder; None where it is finished and nothing is left to do.

    Args:
        run: a run's folder, or a part of its name; None for the newest unfinished run under ``runs_dir``.
        overrides: changes to the run's config, such as ``training.epochs=20`` for a finished run.
        unset: keys that go back to their defaults.

    The other arguments, and ``Raises``, as for ``train``.
    """
    with (
        using(plugins),
        one_training(log),
        calling(log, progress, should_stop) as frontend,
        stopped_by_ctrl_c(frontend),
    ):
        return training.resume(
            run.run.path if isinstance(run, TrainResult) else run,
            overrides=_listed("overrides", overrides),
            unset=_listed("unset", unset),
            data_root=data_root,
            runs_dir=runs_dir,
            allow_change=allow_change,
            frontend=frontend,
        )


def cross_validate(
    config: str | Path | Mapping[str, Any],
    *,
    folds: int = 5,
    group: str | None = None,
    overrides: Sequence[str] = (),
    config_dir: str | Path | None = None,
    data_root: str | Path | None = None,
    cv_dir: str | Path = "cv",
    plugins: Plugins = (),
    log: Log | None = None,
    progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
) -> CvResult:
    """Train on all folds but one, for each of them; the same call goes on after a stop.

    Args:
        config: a file, the name of a shipped config, or a dict with the same keys.
        group: the column of a table; rows with one value of it stay in one fold.
        cv_dir: the folder of this cross-validation is made in it, under the config's name.

    The other arguments, and ``Raises``, as for ``train``.
    """
    with (
        using(plugins),
        one_training(log),
        calling(log, progress, should_stop) as frontend,
        stopped_by_ctrl_c(frontend),
    ):
        return cross_validation.cross_validate(
            config,
            folds=folds,
            group=group,
            overrides=_listed("overrides", overrides),
            config_dir=config_dir,
            data_root=data_root,
            cv_dir=cv_dir,
            frontend=frontend,
        )


def sweep(
    file: str | Path,
    *,
    overrides: Sequence[str] = (),
    sweeps_dir: str | Path = "sweeps",
    storage: str | None = None,
    plugins: Plugins = (),
    log: Log | None = None,
    should_stop: ShouldStop | None = None,
) -> SweepResult:
    """Search for good settings, as the file of a sweep says; the same call goes on after a stop.

    Trials run in processes of their own, which know nothing of the program: plug-ins are named by their modules.

    Args:
        file: the file of the sweep, or the name of a shipped one.
        overrides: of the config of every trial.
        sweeps_dir: the folder of this sweep is made in it, under the sweep's name.
        storage: the URL of a study that several machines share; None for a file in the folder.

    The other arguments, and ``Raises``, as for ``train``; UserError without Optuna too.
    """
    with using(plugins), calling(log, None, should_stop) as frontend, stopped_by_ctrl_c(frontend):
        from trainkit.workflows import sweep as sweeping

        if any(plugin.module == "__main__" for plugin in active()):
            raise UserError(
                "the processes of trials cannot use a plug-in of this program; put it into a module of its own"
            )
        loaded = load_sweep(file, _listed("overrides", overrides))
        return sweeping.sweep(loaded, sweeps_dir=sweeps_dir, storage=storage, frontend=frontend)


def evaluate(
    checkpoint: Checkpoint = None,
    *,
    split: str | None = None,
    data: str | Path | None = None,
    device: str | None = None,
    precision: str | None = None,
    tta: Literal["none", "flip"] = "none",
    data_root: str | Path | None = None,
    runs_dir: str | Path = "runs",
    plugins: Plugins = (),
    log: Log | None = None,
    progress: OnProgress | None = None,
) -> EvalResult:
    """Score a checkpoint: the same numbers as at the end of its training.

    Args:
        checkpoint: a file, a run by its folder or a part of its name (its best checkpoint), what ``train`` returned;
            None for the newest run under ``runs_dir``.
        split: train, val or test; None takes test where there is one, else val, else train.
        data: another folder of images or another CSV file; classes are matched by name.
        device: where to compute; None for the config's.
        precision: what to compute in; None for fp32, as the exported programs, whatever the training computed in.
        tta: ``flip`` scores the mean of the probabilities of an image and its mirror image.
        data_root: where the data are now, in place of the config's ``root``, or of the folder of its tables.

    Raises:
        CheckpointError: the file is damaged, or not a checkpoint.
        UserError: the data have no such split, or are of another kind or with other classes.
    """
    with using(plugins), calling(log, progress) as frontend:
        result = evaluating.evaluate(
            _path(checkpoint),
            split=split,
            data=data,
            device=device,
            precision=precision,
            tta=tta,
            data_root=data_root,
            runs_dir=runs_dir,
            frontend=frontend,
        )
    assert result is not None, "one process"
    return result


def export(
    checkpoint: Checkpoint = None,
    *,
    formats: Format | Sequence[Format] | None = None,
    method: Method = "script",
    output: str | Path | None = None,
    raw: bool = False,
    logits: bool = False,
    input_dtype: InputDtype = "uint8",
    half: bool = False,
    quantize: Quantization | None = None,
    triton: bool = False,
    max_drop: float = 0.01,
    data_root: str | Path | None = None,
    runs_dir: str | Path = "runs",
    plugins: Plugins = (),
    log: Log | None = None,
    progress: OnProgress | None = None,
) -> ExportResult:
    """Write a bundle. Each program is checked against the model in a fresh process; if one differs, nothing is written.

    Args:
        checkpoint: as for ``evaluate``.
        formats: torchscript, pt2, onnx, safetensors, or several of them; None for torchscript (onnx for ``quantize``).
        output: the folder to make; in the run's ``exports/`` when left out.
        max_drop: for ``half`` and ``quantize``: the largest loss of accuracy on the test split, as a fraction; for a
            regression the largest relative growth of the error.

    The other arguments are options of ``trainkit export``.

    Raises:
        UserError: the request or the checkpoint is wrong; nothing was done.
        ExportError: a format cannot hold the model, or a program differs from the model.
    """
    wanted = formats if formats is not None else () if quantize else "torchscript"
    chosen = (wanted,) if isinstance(wanted, str) else tuple(wanted)
    for name, values, known in (
        ("formats", chosen, Format),
        ("method", [method], Method),
        ("input_dtype", [input_dtype], InputDtype),
        ("quantize", [] if quantize is None else [quantize], Quantization),
    ):
        _check_choice(name, values, get_args(known))
    with using(plugins), calling(log, progress) as frontend:
        return exporting.export(
            _path(checkpoint),
            formats=chosen,
            method=method,
            output=output,
            raw=raw,
            logits=logits,
            input_dtype=input_dtype,
            half=half,
            quantize=quantize,
            max_drop=max_drop,
            data_root=data_root,
            runs_dir=runs_dir,
            frontend=frontend,
        )


def predict(
    model: Checkpoint | Predictor,
    inputs: Any,
    *,
    top_k: int = 3,
    device: str = "auto",
    precision: str | None = None,
    tta: Literal["none", "flip"] = "none",
    resize: bool = False,
    runs_dir: str | Path = "runs",
    plugins: Plugins = (),
    log: Log | None = None,
    progress: OnProgress | None = None,
) -> list[Prediction]:
    """A prediction for every sample, in the order of the inputs.

    Args:
        model: a checkpoint, a run, what ``train`` or ``load_model`` returned, an exported bundle or a program in one;
            None for the newest run under ``runs_dir``.
        inputs: one of
            - a path or several: image files, folders, globs, CSV files (one prediction a row) and .npy arrays.
            - images: a NumPy array or a tensor, uint8 from 0 to 255: (N, C, H, W), (N, H, W, C), one image without N,
              and gray ones also (N, H, W) or (H, W); or a list of such images or of pictures of Pillow, of any sizes
              that the model's transforms make one of.
            - rows of a table: a dict of columns, a DataFrame, or a list of dicts; more columns than the model takes do
              no harm. Or numbers (N, F), in the order of the features, in which each category is a feature of its own.
        top_k: how many classes to name.
        device: where a checkpoint's model computes.
        precision: what it computes in; None for fp32, as the exported programs, whatever the training computed in.
        tta: of a checkpoint: ``flip`` for the mean of the probabilities of an image and its mirror image.
        resize: resize images of another size than the model takes, without keeping the aspect ratio; else they are
            broken ones.

    Raises:
        UserError: the model cannot be used, no input exists, or none could be used. Where some are broken, each of
            these gives a ``Prediction`` with an ``error``.
    """
    with using(plugins), calling(log, progress, stage="predictions") as frontend:
        if model is None or isinstance(model, str | Path | TrainResult):
            model = predicting.open_model(
                _path(model), device=device, precision=precision, runs_dir=Path(runs_dir), frontend=frontend
            )
        if isinstance(model, TrainedModel):
            use_tf32(model.precision.value)  # opened in an earlier call, whose settings are gone
        found = list(predicting.predict(model, inputs, top_k=top_k, tta=tta, resize=resize, frontend=frontend))
    if all(one.error is not None for one in found):
        raise UserError("\n".join(first_lines([f"{one.source}: {one.error}" for one in found])))
    return found


def load_model(
    checkpoint: Checkpoint = None,
    *,
    device: str | None = None,
    precision: str | None = None,
    runs_dir: str | Path = "runs",
    plugins: Plugins = (),
    log: Log | None = None,
) -> TrainedModel:
    """A checkpoint's model: ``.model`` is the ``torch.nn.Module`` in eval mode, with the weights that were scored.

    ``.predict(rows)`` gives probabilities (N, K), or values (N, T) of a regression; ``trainkit.predict`` takes it too.

    Args:
        checkpoint: as for ``evaluate``.
        device: where to compute; None for the config's.
        precision: what to compute in; None for fp32.

    Raises:
        CheckpointError: the file is damaged, or not a checkpoint.
        UserError: there is no such run, or no such device.
    """
    with using(plugins), calling(log, None) as frontend:
        path = find_checkpoint(_path(checkpoint), runs_dir=Path(runs_dir), frontend=frontend)
        return open_trained(path, device=device, precision=precision)


def _path(checkpoint: Checkpoint) -> Path | None:
    if isinstance(checkpoint, TrainResult):
        return checkpoint.best_checkpoint
    return None if checkpoint is None else Path(checkpoint)


def _listed(name: str, given: Sequence[str]) -> Sequence[str]:
    """Several texts, or one."""
    found = [given] if isinstance(given, str) else list(given)
    for item in found:
        if not isinstance(item, str):
            raise UserError(f"{name}: expected text such as optimizer.lr=0.1, got {item!r}")
    return found


def _check_choice(name: str, values: Sequence[str], known: Sequence[str]) -> None:
    for value in values:
        if value not in known:
            near = closest(str(value), known)
            hint = f"; did you mean {near}?" if near else ""
            raise UserError(f"{name}: expected one of {', '.join(known)}, got {value!r}{hint}")
