"""Take one guarantee away, and a test must turn red: each patch is applied to a copy of the sources."""

import shutil
from dataclasses import dataclass

import pytest
from torch_forks import REPOSITORY, run_tests

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Saboteur:
    name: str
    file: str
    old: str
    new: str
    tests: str
    """What must notice: arguments of pytest."""


EXACT = "tests/workflows/train/test_exact_resume.py -k test_stopped_at_each_step[3]"
COMBINED = "tests/workflows/train/test_exact_resume.py -k test_combinations"
STATE = "tests/engine/test_state.py"
COMMAND = "tests/workflows/train/test_resume.py"
SABOTEURS = [
    Saboteur(
        "no fsync of the folder",
        "system/durable.py",
        "        ops.fsync_folder(str(folder))\n",
        "        pass\n",
        "tests/checkpoints/test_power_loss.py",
    ),
    Saboteur(
        "delete first",
        "checkpoints/folder.py",
        "        path, entry = self._publish(",
        "        self._delete(self._journal.entries)\n        path, entry = self._publish(",
        "tests/checkpoints/test_save_errors.py",
    ),
    Saboteur(
        "newest by name",
        "checkpoints/journal.py",
        "key=lambda entry: entry.sequence)), value",
        "key=lambda entry: entry.name)), value",
        "tests/checkpoints/test_retention.py",
    ),
    Saboteur(
        "scheduler stepped after the save",
        "engine/state.py",
        '            "progress": asdict(self.progress),\n',
        '            "progress": {**asdict(self.progress), "steps_completed": self.progress.steps_completed - 1},\n',
        EXACT,
    ),
    Saboteur(
        "best not restored", "engine/state.py", "            self.best = saved_best\n", "            pass\n", STATE
    ),
    Saboteur(
        "metrics opened with w", "recorders/logs.py", "os.O_CREAT | os.O_APPEND", "os.O_CREAT | os.O_TRUNC", EXACT
    ),
    Saboteur(
        "what a killed run had logged stays",
        "workflows/train/recording.py",
        "    lines.truncate_after(progress.steps_completed, epochs=progress.epochs_completed)\n",
        "",
        f"{COMMAND} -k killed_before_its_first_checkpoint",
    ),
    Saboteur(
        "exit 0 on SIGTERM",
        "system/frontend.py",
        "        return 128 + (self.signum or 0)",
        "        return 0",
        "tests/workflows/train/test_signals_in_phases.py -k test_a_signal_in_each_phase[training-4-15]",
    ),
    Saboteur(
        "dropout seeded once",
        "engine/step.py",
        " == 1:\n        seed_layer_noise(plan.seed",
        " == 1:\n        state.progress.batches_completed or seed_layer_noise(plan.seed",
        EXACT,
    ),
    Saboteur(
        "order from a stateful generator",
        "runtime/seeding.py",
        '    return torch.randperm(length, generator=generator(seed, "order", epoch))',
        "    return torch.randperm(length)",
        EXACT.replace("[3]", "[10]"),
    ),
    Saboteur(
        "batches at any address",
        "data/loading/transfer.py",
        "    return tensor if start",
        "    return tensor if True or start",
        "tests/engine/test_resume_property.py",
    ),
    Saboteur(
        "a state in the old memory layout",
        "engine/state.py",
        "        match_parameters(self.optimizer)\n",
        "",
        STATE,
    ),
    Saboteur("totals not saved", "engine/state.py", "asdict(self.totals)", "asdict(EpochTotals())", EXACT),
    Saboteur(
        "counter of the average not restored",
        "engine/optimizers.py",
        '        self.num_updates = state["num_updates"]\n',
        "",
        STATE,
    ),
    Saboteur("plateau not restored", "engine/state.py", '((self.plateau, "plateau"), ', "(", STATE),
    Saboteur(
        "optimizer not restored",
        "engine/state.py",
        '        load_by_name(self.optimizer, state["optimizer"], names=names)\n',
        "",
        EXACT,
    ),
    Saboteur(
        "early stopping begins anew",
        "engine/state.py",
        'self.early_stopping.epochs_without_improvement = saved["epochs_without_improvement"]',
        "pass",
        COMBINED,
    ),
    Saboteur(
        "always from the start of the epoch", "engine/loop.py", "start=progress.batches_completed", "start=0", EXACT
    ),
    Saboteur(
        "a live run is taken over",
        "system/run_folder.py",
        "        if locked is False or (locked is None and owner is not None):",
        "        if False:",
        f"{COMMAND} -k live_run",
    ),
    Saboteur(
        "a NaN steps",
        "engine/nonfinite.py",
        "        return not skip\n",
        "        return True\n",
        "tests/engine/test_nonfinite.py",
    ),
    Saboteur(
        "a captured step begins from the state of its trial",
        "engine/captured.py",
        "        put_back(live, after)\n",
        "",
        "tests/engine/test_captured.py",
    ),
    Saboteur(
        "a flipped bit is taken",
        "checkpoints/inspection.py",
        "        archive.check()\n",
        "",
        "tests/checkpoints/test_damage.py",
    ),
    Saboteur(
        "the newest, good or not",
        "workflows/train/resume_point.py",
        "    path, skipped = folder.newest_good()\n",
        "    path, skipped = folder.last(), []\n",
        f"{COMMAND} -k takes_the_newest_good_one",
    ),
    Saboteur(
        "an export goes on after a stop",
        "exports/assemble.py",
        "        if should_stop is not None and should_stop():",
        "        if False:",
        "tests/exports/test_bundle.py -k between_two_formats",
    ),
    Saboteur(
        "the check of an export goes on after a stop",
        "system/processes.py",
        "            if should_stop is not None and should_stop():",
        "            if False:",
        "tests/workflows/train/test_signals_in_phases.py -k test_a_signal_in_each_phase[export: checking-1-15]",
    ),
    Saboteur(
        "a download goes on after a stop",
        "data/sources/torchvision_sets.py",
        "        if should_stop is not None and should_stop():",
        "        if False:",
        "tests/workflows/train/test_signals_in_phases.py -k test_a_download_is_given_up",
    ),
    Saboteur(
        "changed data pass",
        "workflows/train/changes.py",
        "    if changes:\n        raise",
        "    if False:\n        raise",
        COMMAND,
    ),
]


@pytest.mark.parametrize("saboteur", SABOTEURS, ids=lambda saboteur: saboteur.name)
def test_is_caught(tmp_path, saboteur):
    shutil.copytree(REPOSITORY / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "configs").symlink_to(REPOSITORY / "configs")
    file = tmp_path / "src" / "trainkit" / saboteur.file
    text = file.read_text()
    assert text.count(saboteur.old) == 1, f"{saboteur.file} reads otherwise now: renew the patch"
    file.write_text(text.replace(saboteur.old, saboteur.new))
    path, _, keyword = saboteur.tests.partition(" -k ")
    chosen = [f"{path}::{keyword}"] if "[" in keyword else [path, *(["-k", keyword] if keyword else [])]
    # A test that is named is run whether or not it is a slow one.
    marks = ["-m", ""] if keyword else []
    command = ["-q", "-n0", "-x", "-p", "no:cacheprovider", "--tb=line", *marks, *chosen]
    code = run_tests(tmp_path / "src", command, output=tmp_path / "output.txt")
    said = (tmp_path / "output.txt").read_text()
    assert code == 1, f"nobody noticed:\n{said}"
    assert " failed" in said
