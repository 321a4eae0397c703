"""trainkit from Python: what the commands do, as functions. ``import trainkit`` offers them.

Each function leaves PyTorch's settings, its generators, warning filters and signal handlers as they were, and prints
nothing.
"""
# mypy: implicit-reexport

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trainkit.builders import TrainedModel
from trainkit.callbacks import (
    Log,
    OnProgress,
    Plugins,
    ShouldStop,
    calling,
    stopped_by_ctrl_c,
    training_call,
)
from trainkit.config import LoadedConfig, load_config, load_sweep
from trainkit.config.help import is_copied, write_starter
from trainkit.errors import UserError, check_choice
from trainkit.exports import ExportRequest, Format, InputDtype, Method, Quantization
from trainkit.plugins import active
from trainkit.runtime import use_tf32
from trainkit.wording import first_lines
from trainkit.workflows import cross_validation
from trainkit.workflows import evaluate as evaluating
from trainkit.workflows import export as exporting
from trainkit.workflows import init as starting
from trainkit.workflows import predict as predicting
from trainkit.workflows import train as training
from trainkit.workflows.cross_validation import CvResult
from trainkit.workflows.evaluate import EvalResult
from trainkit.workflows.export import ExportResult
from trainkit.workflows.find import open_checkpoint
from trainkit.workflows.init import InitResult
from trainkit.workflows.lr_find import SEEDS, STEPS, LrFindResult
from trainkit.workflows.lr_find import find as find_rate
from trainkit.workflows.lr_find.search import search
from trainkit.workflows.predict import Prediction, Predictor
from trainkit.workflows.train import TrainResult

if TYPE_CHECKING:
    from trainkit.workflows.sweep import SweepResult


Config = LoadedConfig | str | Path | Mapping[str, Any]
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
    with training_call(_plugins(plugins, config), log, progress, should_stop) as frontend:
        loaded = _load(config, overrides, config_dir, data_root)
        for note in loaded.notes:
            frontend.say(f"note: {note}")
        result = training.train(
            loaded,
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
    _check_least(("steps", steps, 100), ("seeds", seeds, 1))
    given = _plugins(plugins, config)
    with training_call(given, log, progress, should_stop, stage="learning rates") as frontend:
        loaded = _load(config, overrides, config_dir, data_root)
        return find_rate(search(loaded, steps=steps, seeds=seeds, frontend=frontend))


def _plugins(given: Plugins, config: Config) -> Plugins:
    return [*given, *(config.config.plugins if isinstance(config, LoadedConfig) else ())]


def _load(
    config: Config, overrides: Sequence[str], config_dir: str | Path | None, data_root: str | Path | None
) -> LoadedConfig:
    if not isinstance(config, LoadedConfig | str | Path | Mapping):
        raise UserError(f"config: expected a file, a dict or what load_config returned, got {type(config).__name__}")
    if not isinstance(config, LoadedConfig):
        loaded = load_config(config, overrides=_listed("overrides", overrides), config_dir=config_dir)
        return loaded.at_data_root(data_root)
    for name, value in (("overrides", overrides), ("config_dir", config_dir)):
        if value:
            raise UserError(
                f"{name} go with a file or a dict, and this config is loaded already: give them to load_config"
            )
    return config.at_data_root(data_root)


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
    with training_call(plugins, log, progress, should_stop) as frontend:
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
    with training_call(plugins, log, progress, should_stop) as frontend:
        plan = cross_validation.make_plan(
            config,
            folds=folds,
            group=group,
            overrides=_listed("overrides", overrides),
            config_dir=config_dir,
            data_root=data_root,
        )
        return cross_validation.cross_validate(plan, cv_dir=cv_dir, frontend=frontend)


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
    with calling(plugins, log, None, should_stop) as frontend, stopped_by_ctrl_c(frontend):
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
    tta: Literal["none", "flip", "flip_shift"] = "none",
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
        tta: ``flip`` scores the mean of the probabilities of an image and its mirror image, ``flip_shift`` of both and
            of both moved by a pixel to two sides.
        data_root: where the data are now, in place of the config's ``root``, or of the folder of its tables.

    Raises:
        CheckpointError: the file is damaged, or not a checkpoint.
        UserError: the data have no such split, or are of another kind or with other classes.
    """
    with calling(plugins, log, progress) as frontend:
        trained = open_checkpoint(
            _path(checkpoint),
            device=device,
            precision=precision,
            data_root=data_root,
            runs_dir=runs_dir,
            frontend=frontend,
        )
        result = evaluating.evaluate(trained, split=split, data=data, tta=tta, frontend=frontend)
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
        formats: torchscript, pt2, onnx, safetensors, or several of them; None for torchscript, or for onnx with
            ``quantize`` or ``triton``.
        output: the folder to make; in the run's ``exports/`` when left out.
        max_drop: for ``half`` and ``quantize``: the largest loss of accuracy on the test split, as a fraction; for a
            regression the largest relative growth of the error.

    The other arguments are options of ``trainkit export``.

    Raises:
        UserError: the request or the checkpoint is wrong; nothing was done.
        ExportError: a format cannot hold the model, or a program differs from the model.
    """
    wanted = formats if formats is not None else () if quantize or triton else "torchscript"
    chosen = (wanted,) if isinstance(wanted, str) else tuple(wanted)
    request = ExportRequest(chosen, method, raw, logits, input_dtype, half, quantize, triton, max_drop)
    with calling(plugins, log, progress) as frontend:
        return exporting.export(
            _path(checkpoint), request, output=output, data_root=data_root, runs_dir=runs_dir, frontend=frontend
        )


def predict(
    model: Checkpoint | Predictor,
    inputs: Any,
    *,
    top_k: int = 3,
    device: str = "auto",
    precision: str | None = None,
    tta: Literal["none", "flip", "flip_shift"] = "none",
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
        tta: of a checkpoint: as for ``evaluate``.
        resize: resize images of another size than the model takes, without keeping the aspect ratio; else they are
            broken ones.

    Raises:
        UserError: the model cannot be used, no input exists, or none could be used. Where some are broken, each of
            these gives a ``Prediction`` with an ``error``.
    """
    with calling(plugins, log, progress, stage="predictions") as frontend:
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


def init(
    data: str | Path | None = None,
    *,
    target: str | Sequence[str] | None = None,
    task: Literal["classification", "regression"] | None = None,
    overrides: Sequence[str] = (),
    minutes: float = 10.0,
    output: str | Path | None = None,
    pretrained: bool | None = None,
    source: str | None = None,
    log: Log | None = None,
    progress: OnProgress | None = None,
) -> InitResult:
    """Look at a folder of pictures or a table, and write a config whose every line has its reason.

    Args:
        data: a folder with a folder for each class; a table's file, a pattern, or a folder of Parquet files; None for a
            commented config to start from.
        target: the column of a table to predict, or several; None: the one with a usual name.
        task: what the target is, where the table does not say.
        overrides: what the table does not say, as after ``--set``: ``dataset.header=false``.
        minutes: how long a training may take, about.
        output: the file to write; it must not be there. None: the name of the data, here.
        pretrained: whether a network for large pictures begins with published weights, which may be downloaded; None:
            where they are on this machine.
        source: the name of a shipped config to copy, in place of ``data``.

    Raises:
        UserError: the data are neither; no target; the file is there already.
        ConfigError: the data cannot be used, with all reasons.
    """
    _check_least(("minutes", minutes, 0.1))
    if task is not None:
        check_choice("task", task, ("classification", "regression"))
    if is_copied(data, source, given=(target, task, overrides or None, pretrained)):
        path = write_starter(None if output is None else Path(output), source=source)
        return InitResult(path, path.read_text(encoding="utf-8"))
    assert data is not None
    with calling((), log, progress) as frontend:
        return starting.init(
            data,
            target=target,
            task=task,
            overrides=_listed("overrides", overrides),
            minutes=minutes,
            output=output,
            pretrained=pretrained,
            frontend=frontend,
        )


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
    with calling(plugins, log) as frontend:
        return open_checkpoint(
            _path(checkpoint), device=device, precision=precision, runs_dir=runs_dir, frontend=frontend
        )


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


def _check_least(*arguments: tuple[str, float, float]) -> None:
    """Raise UserError for one that is less than the least that it may be: (name, value, least)."""
    for name, value, least in arguments:
        if not value >= least:
            raise UserError(f"{name}: expected {least} or more, got {value}")
