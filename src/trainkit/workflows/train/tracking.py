"""The trackers that a config asks for, besides the log and the terminal."""

from __future__ import annotations

from collections.abc import Callable

from trainkit.builders import Setup
from trainkit.engine import Batches, Recorder
from trainkit.recorders import TensorBoardRecorder, add_graph, add_samples
from trainkit.system import RunDir
from trainkit.wording import by_key


def build_trackers(
    run: RunDir, setup: Setup, batches: Batches, *, step: int, say: Callable[[str], None]
) -> list[Recorder]:
    """Recorders that may fail without harm. ``step`` is where the run goes on from, 0 for a new one."""
    if not setup.config.logging.tensorboard:
        return []
    try:
        recorder = TensorBoardRecorder(
            run.tensorboard, step=step, hparams=by_key(setup.config.model_dump(exclude_none=True))
        )
        if step == 0:
            inputs = next(iter(batches.epoch(0))).inputs
            add_samples(recorder, inputs)
            add_graph(recorder, setup.model, inputs)
    except Exception as error:  # noqa: BLE001  (a tracker never stops training)
        say(f"warning: TensorBoard is left out: {type(error).__name__}: {error}")
        return []
    return [recorder]
