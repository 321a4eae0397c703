"""What is known of each trial of a sweep, in Optuna's storage, and which process works on it.

Optuna's states are kept: a trial that waits to be gone on with is WAITING, and the change from WAITING to RUNNING is
made by one process only, whichever the storage. Optuna's own heartbeats are not used: they are there for databases
alone, and give what a dead machine left behind a new number.
"""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from trainkit.errors import TrainkitError, UserError
from trainkit.system import Process, is_alive, this_process

BEAT_SECONDS = 10.0
"""Between two signs of life of a process that works on trials of a study that several machines share."""
GRACE_SECONDS = 60.0
"""Without a sign of life, after which another machine takes a trial over."""
JOURNAL = "study.journal"

State = Literal["running", "stopped", "paused", "complete", "pruned", "failed"]


@dataclass(frozen=True)
class Trial:
    """What the study knows of a trial."""

    number: int
    state: State
    """stopped: to be gone on with. paused: at its rung, unless it is promoted."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """By search key, as the study stores them; a key that is missing has not got its value yet."""
    curve: Mapping[int, float] = field(default_factory=dict)
    """The objective after each epoch so far."""
    score: float | None = None
    target: int | None = None
    """The epoch at which it pauses; None for a trial that is trained to its end."""
    reason: str | None = None
    """Why it failed."""
    run: str | None = None
    """The name of its run folder."""
    seconds: float = 0.0
    threads: int | None = None
    """Of an operation of the CPU; the last digits of the score depend on it."""
    owner: str = ""
    """The process that works on it, or did."""
    host: str = ""
    beat: int = 0
    id: int = -1
    """Of the storage."""
    attrs: Mapping[str, Any] = field(default_factory=dict)
    """What a sampler has noted."""

    @property
    def epochs(self) -> int:
        return max(self.curve, default=0)

    def best_until(self, epoch: int, *, maximize: bool) -> float:
        """The best objective of its first epochs; NaN where it has none."""
        values = [value for at, value in self.curve.items() if at <= epoch and not math.isnan(value)]
        return (max if maximize else min)(values, default=math.nan)


def open_storage(url: str | None, folder: Path) -> BaseStorage:
    """The storage of a sweep: a journal in its folder, or what a URL names.

    Raises:
        UserError: there is no such storage, or it cannot be reached.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if url is None:
        path = folder / JOURNAL
        mend_journal(path)
        # The sweep's folder is held by one process, so the journal needs no lock; Optuna's own would outlive a kill.
        return JournalStorage(JournalFileBackend(str(path), lock_obj=_NoLock(str(path))))
    try:
        # A connection that the server has closed meanwhile is made anew.
        return optuna.storages.get_storage(RDBStorage(with_driver(url), engine_kwargs={"pool_pre_ping": True}))
    except ImportError as error:
        missing = getattr(error.__cause__ or error.__context__, "name", None) or "its driver"
        hint = "pip install 'psycopg[binary]'" if url.startswith("postgresql") else f"install {missing}"
        raise UserError(f"--storage {without_password(url)}: Python has no module {missing}; {hint}") from error
    except Exception as error:
        first = next(iter(str(error).splitlines()), "")
        raise UserError(f"--storage {without_password(url)}: {first or type(error).__name__}") from error


def with_driver(url: str) -> str:
    """``postgresql://`` names psycopg from SQLAlchemy 2.1 on, and named psycopg2 before: take what is installed."""
    driver = next((name for name in ("psycopg", "psycopg2") if find_spec(name) is not None), None)
    scheme, mark, rest = url.partition("://")
    return f"postgresql+{driver}{mark}{rest}" if scheme == "postgresql" and driver is not None else url


def without_password(url: str) -> str:
    """A URL for messages."""
    scheme, mark, rest = url.partition("://")
    user, at, place = rest.rpartition("@")
    return f"{scheme}{mark}{user.partition(':')[0]}{':***' if ':' in user else ''}{at}{place}"


class _NoLock(JournalFileOpenLock):
    def acquire(self) -> bool:
        return True

    def release(self) -> None: ...


def mend_journal(path: Path) -> None:
    """Cut off a last line that was not written to its end, as after a power failure."""
    with suppress(FileNotFoundError), open(path, "r+b") as file:
        data = file.read()
        if data and not data.endswith(b"\n"):
            file.truncate(data.rfind(b"\n") + 1)


class Study:
    """The trials of a search in a storage. All that is written here is a record of its own, whole or absent."""

    def __init__(
        self, storage: BaseStorage, name: str, *, maximize: bool, distributions: Mapping[str, BaseDistribution]
    ) -> None:
        self.storage, self.name, self.maximize, self.distributions = storage, name, maximize, dict(distributions)
        direction = StudyDirection.MAXIMIZE if maximize else StudyDirection.MINIMIZE
        with suppress(optuna.exceptions.DuplicatedStudyError):
            storage.create_new_study([direction], name)
        self.id = storage.get_study_id_from_name(name)
        self.me = this_process().token

    # --- reading ---------------------------------------------------------------------------------------------

    def trials(self) -> list[Trial]:
        return [self._trial(one) for one in self.storage.get_all_trials(self.id, deepcopy=False)]

    def _trial(self, one: FrozenTrial) -> Trial:
        known = one.user_attrs
        curve = {step: math.nan if value is None else float(value) for step, value in one.intermediate_values.items()}
        target = known.get("target")
        return Trial(
            number=one.number,
            state=_state(one, reached=target is not None and max(curve, default=0) >= target),
            values=dict(one.params),
            curve=dict(sorted(curve.items())),
            score=one.value if one.state == TrialState.COMPLETE else None,
            target=target,
            reason=known.get("reason"),
            run=known.get("run"),
            seconds=known.get("seconds", 0.0),
            threads=None if known.get("threads") is None else int(known["threads"]),
            owner=known.get("owner", ""),
            host=known.get("host", ""),
            beat=known.get("beat", 0),
            id=one._trial_id,
            attrs={name: value for name, value in one.system_attrs.items()},
        )

    def note(self, key: str, value: Any = None) -> Any:
        """A value of the whole study; with ``value``, set it where there is none yet."""
        known = self.storage.get_study_user_attrs(self.id)
        if value is not None and key not in known:
            self.storage.set_study_user_attr(self.id, key, value)
            return value
        return known.get(key)

    # --- writing ---------------------------------------------------------------------------------------------

    def add(self) -> Trial:
        """A new trial that this process works on; its number is the study's next."""
        return self._own(self.storage.create_new_trial(self.id))

    def claim(self, trial: Trial) -> Trial | None:
        """Work on a trial that nobody works on; None where another process was faster."""
        if trial.state == "running":  # its process is dead
            now = self.storage.get_trial(trial.id)
            if now.state.is_finished() or now.user_attrs.get("owner", "") != trial.owner:
                return None
            if now.state == TrialState.RUNNING:
                self.storage.set_trial_state_values(trial.id, TrialState.WAITING)
        with suppress(optuna.exceptions.UpdateFinishedTrialError):
            if self.storage.set_trial_state_values(trial.id, TrialState.RUNNING):
                return self._own(trial.id)
        return None

    def _own(self, trial_id: int) -> Trial:
        self.write(trial_id, owner=self.me, host=socket.gethostname())
        return self._trial(self.storage.get_trial(trial_id))

    def owns(self, trial: Trial) -> bool:
        """Whether this process still works on a trial, which another may have taken over."""
        now = self.storage.get_trial(trial.id)
        return now.state == TrialState.RUNNING and now.user_attrs.get("owner") == self.me

    def write(self, trial_id: int, **values: Any) -> None:
        for key, value in values.items():
            self.storage.set_trial_user_attr(trial_id, key, value)

    def set_values(self, trial: Trial, values: Mapping[str, Any], attrs: Mapping[str, Any]) -> Trial:
        """Store the values of a trial; those that it has already stay."""
        for key, value in attrs.items():
            self.storage.set_trial_system_attr(trial.id, key, value)
        for key, value in values.items():
            if key not in trial.values:
                distribution = self.distributions[key]
                self.storage.set_trial_param(trial.id, key, distribution.to_internal_repr(value), distribution)
        return self._trial(self.storage.get_trial(trial.id))

    def report(self, trial: Trial, epoch: int, value: float) -> Trial:
        self.storage.set_trial_intermediate_value(trial.id, epoch, value)
        return self._trial(self.storage.get_trial(trial.id))

    def release(self, trial: Trial) -> None:
        """Leave a trial to whoever goes on with it."""
        self.storage.set_trial_state_values(trial.id, TrialState.WAITING)

    def complete(self, trial: Trial, score: float) -> None:
        self.storage.set_trial_state_values(trial.id, TrialState.COMPLETE, [score])

    def prune(self, trial: Trial) -> None:
        value = trial.curve[trial.epochs]
        self.storage.set_trial_state_values(trial.id, TrialState.PRUNED, None if math.isnan(value) else [value])

    def fail(self, trial: Trial, reason: str) -> None:
        self.write(trial.id, reason=reason)
        self.storage.set_trial_state_values(trial.id, TrialState.FAIL)


def _state(one: FrozenTrial, *, reached: bool) -> State:
    match one.state:
        case TrialState.RUNNING:
            return "running"
        case TrialState.COMPLETE:
            return "complete"
        case TrialState.PRUNED:
            return "pruned"
        case TrialState.FAIL:
            return "failed"
        case _:
            return "paused" if reached else "stopped"


class Watch:
    """Whether the processes that work on trials still live.

    On this machine the system knows. Of other machines a number in the study says so, which they change every
    ``BEAT_SECONDS``: it is compared with what it was before by the clock of this machine alone.
    """

    def __init__(self, study: Study, *, shared: bool) -> None:
        self.study, self.shared = study, shared
        self.seen: dict[int, tuple[tuple[str, int], float]] = {}
        self.last = -math.inf

    def beat(self, mine: Iterable[Trial]) -> None:
        """Give a sign of life for the trials that this process works on, where it is time."""
        if self.shared and time.monotonic() - self.last >= BEAT_SECONDS:
            self.last = time.monotonic()
            for trial in mine:
                self.study.write(trial.id, beat=int(time.time()))

    def is_dead(self, trial: Trial) -> bool:
        """Whether nobody works on a running trial, which is not one of this process."""
        if not self.shared or trial.owner == self.study.me:
            return True
        process = Process.from_token(trial.owner)
        alive = None if process is None else is_alive(process)
        if alive is not None:
            return not alive
        sign = (trial.owner, trial.beat)
        before, since = self.seen.get(trial.number, (None, 0.0))
        if before != sign:
            self.seen[trial.number] = (sign, time.monotonic())
            return False
        return time.monotonic() - since > GRACE_SECONDS


@contextmanager
def storage_errors(url: str | None) -> Iterator[None]:
    """A database that is gone, as a message for the user."""
    try:
        yield
    except (optuna.exceptions.StorageInternalError, OSError) as error:
        where = "the journal of the study" if url is None else without_password(url)
        first = next(iter(str(error.__cause__ or error).splitlines()), "")
        raise TrainkitError(f"{where}: {first}; the trials' states are saved; the same command goes on") from error
