"""The search for a learning rate: training steps while the rate rises, from the first weights. Nothing is written."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Generator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

from trainkit.builders import build_setup
from trainkit.config import LoadedConfig
from trainkit.data.loading import Batch
from trainkit.engine import Batches, Freezing, Guard, MixedBatches, NonFiniteError, Schedule, TrainState, train_step
from trainkit.runtime import Ranks
from trainkit.system import Frontend
from trainkit.workflows.lr_find.curves import Curve, Smoothed, learning_rates
from trainkit.workflows.lr_find.run import check_searchable
from trainkit.workflows.train.failures import explained
from trainkit.workflows.train.run import Prepared, prepare, stretches


def search(loaded: LoadedConfig, *, steps: int, seeds: int, frontend: Frontend) -> list[Curve]:
    """The loss while the learning rate rises, once for each seed: the config's own and those that follow it.

    Samples and splits are those of the config; first weights, order and all noise are those of the seed.

    Raises:
        UserError: the config or the data are wrong, or the optimizer has no learning rate to search for.
        Interrupted: the frontend asked for a stop.
    """
    check_searchable(loaded)

    def say(message: str) -> None:
        if message.startswith(("note: ", "warning: ")):  # the rest is about a run
            frontend.say(message)

    quieter = replace(frontend, say=say)
    prepared = prepare(loaded, None, runs_dir=Path("runs"), allow_change=(), ranks=Ranks(), frontend=quieter)
    curves: list[Curve] = []
    for number in range(seeds):
        if number:
            prepared = with_seed(prepared, loaded.config.seed + number)
        with explained(batch_size=loaded.config.training.batch_size):
            curves.append(raise_rate(prepared, steps, done=number * steps, total=seeds * steps, frontend=quieter))
    if frontend.progress is not None:
        frontend.progress(seeds * steps, seeds * steps)
    return curves


def with_seed(prepared: Prepared, seed: int) -> Prepared:
    """The same run on the same samples, from the first weights of another seed."""
    before = prepared.setup
    config = before.config.model_copy(update={"seed": seed})
    setup = build_setup(config, data=before.data)
    setup = replace(setup, files=before.files, choices=before.choices)
    setup.suit_weights()
    batches = setup.batches("train", training=True)
    return Prepared(setup, batches, setup.state(steps_per_epoch=batches.batches_per_epoch), None)


def raise_rate(prepared: Prepared, steps: int, *, done: int, total: int, frontend: Frontend) -> Curve:
    """One step at each learning rate, until the loss diverges or is not finite.

    Args:
        done: the steps before these, of ``total``.
    """
    state, mean = prepared.state, Smoothed()
    curve = Curve(prepared.setup.config.seed, steps)
    part, batches, _ = next(stretches(prepared, frontend))
    begin(state, learning_rates(steps))
    plan = part.plan()
    guard = Guard(state.model, state.optimizer, skip_limit=0, scaled=state.scaler is not None)
    state.train()
    with closing(cycled(batches)) as endless, suppress(NonFiniteError):
        for number, batch in enumerate(itertools.islice(endless, steps)):
            frontend.check("the search was given up; nothing was written")
            if frontend.progress is not None:
                frontend.progress(done + number, total)
            result = train_step(state, plan, batch, guard=guard, lr=state.follow_schedule())
            guard.flush()
            state.progress.steps_completed += 1
            curve.losses.append(float(result.loss / result.weight) * plan.loss.unit)
            if mean.diverges(mean.add(curve.losses[-1])):
                break
    return curve


def begin(state: TrainState, rates: list[float]) -> None:
    """Put the rising rate in the place of the schedule; all else stays as it is before the first step."""
    state.schedule = Schedule(main_lr=rates.__getitem__)
    state.plateau = state.ema = state.swa = None
    if state.freezing is not None:
        state.freezing = Freezing(dict.fromkeys(state.freezing.until), state.freezing.batch_norm)


def cycled(batches: Batches) -> Generator[Batch]:
    """The batches of one epoch after the other, without end."""
    if isinstance(batches, MixedBatches):
        batches = MixedBatches(batches.batches, batches.mixing, seed=batches.seed, num_steps=sys.maxsize)
    for epoch in itertools.count():
        yield from batches.epoch(epoch)
