"""What is compared with what, and what is advised: with made-up measurements, so that every case can be had."""

import subprocess
import sys
from dataclasses import replace

import pytest
import yaml

from trainkit.errors import Interrupted
from trainkit.workflows.bench.run import ChildFailed, Measurement, Memory, Setting, compare, failure_line, measure_apart

BASE = Setting("fp32", True, False, 100, 1)


def made_up(setting, speed, **changes):
    found = Measurement(
        setting=setting,
        samples_per_second=speed,
        spread=(speed, speed),
        steps_measured=10,
        epoch_samples=1000,
        epochs=10,
        compile_seconds=10.0 if setting.compile else 0.0,
        memory=Memory(100.0, 200.0, None),
        seconds={"data": 1.0},
        machine={"device": "cpu", "hardware": "", "threads": "1", "most_threads": "1", "torch": ""},
        convolutional=True,
    )
    return replace(found, **changes)


class Machine:
    """Measures in no time: speeds come from a function of the setting and of how often it was measured.

    A text of that function is why the setting failed.
    """

    def __init__(self, speed, *, base=BASE, stop_after=None, **changes):
        self.speed, self.base, self.stop_after, self.changes = speed, base, stop_after, changes
        self.asked = []

    def __call__(self, overrides):
        if len(self.asked) == self.stop_after:
            raise Interrupted("stopped", 130)
        lines = [item.removeprefix("training.").replace("=", ": ") for item in overrides]
        setting = replace(self.base, **yaml.safe_load("\n".join(lines) or "{}"))
        self.asked.append(setting)
        speed = self.speed(setting, self.asked.count(setting))
        if isinstance(speed, str):
            raise ChildFailed(1, f"error: {speed}")
        return made_up(setting, speed, **self.changes)


def same_speed(setting, time):
    return 1000.0


def settings(found):
    return [trial.setting for trial in found.trials]


def test_every_precision_layout_and_batch_size_once():
    machine = Machine(same_speed)
    found = compare(machine)
    expected = {
        Setting(p, layout, False, n, 1) for p in ("fp32", "bf16") for layout in (True, False) for n in (100, 400)
    }
    assert set(settings(found)) == expected
    assert len(machine.asked) == 8 == found.planned
    assert settings(found)[0] == BASE
    assert found.advice is None


@pytest.mark.parametrize(
    ("changes", "key", "values"),
    [
        ({"machine": {"device": "cuda:0"}}, "precision", {"fp32", "bf16", "fp16"}),
        ({"convolutional": False}, "channels_last", {True}),
        ({"epoch_samples": 399}, "batch_size", {100}),
    ],
    ids=["a GPU is tried with fp16 too", "no other layout without convolutions", "no batch larger than the data"],
)
def test_settings_fit_machine_model_and_data(changes, key, values):
    found = compare(Machine(same_speed, **changes))
    assert {getattr(setting, key) for setting in settings(found)} == values


def test_the_fastest_is_advised():
    found = compare(Machine(lambda s, time: 1000.0 + 300 * (s.precision == "bf16") + 100 * (not s.channels_last)))
    assert found.advice.setting == Setting("bf16", False, False, 100, 1)
    assert found.advice.gains == (pytest.approx(1.4), pytest.approx(1.4))
    assert found.advice.holds
    assert found.advice.setting.overrides(BASE) == ["training.precision=bf16", "training.channels_last=false"]


TWO_CORES = {"device": "cpu", "most_threads": "2"}


def test_one_thread_is_tried_first_and_taken_for_the_rest_where_it_is_faster():
    base = replace(BASE, num_threads=2)
    speed = lambda s, time: (3000.0 if s.num_threads == 1 else 1000.0) + 500 * (s.precision == "bf16")  # noqa: E731
    found = compare(Machine(speed, base=base, machine=TWO_CORES))
    assert settings(found)[:2] == [base, BASE]
    assert {setting.num_threads for setting in settings(found)[1:]} == {1}
    assert len(set(settings(found))) == len(found.trials) == 9
    assert found.advice.setting.overrides(base) == ["training.precision=bf16", "training.num_threads=1"]
    assert found.advice.gains[0] == pytest.approx(3.5)


@pytest.mark.parametrize(
    ("changes", "machine", "tried"),
    [
        ({}, TWO_CORES, [1, 2]),
        ({"num_threads": 2}, TWO_CORES, [2, 1]),
        ({"num_threads": 4}, {"device": "cpu", "most_threads": "8"}, [4, 1, 8]),
        ({}, {"device": "cpu", "most_threads": "1"}, [1]),
        ({"num_threads": 2}, {"device": "cuda:0", "most_threads": "8"}, [2]),
    ],
)
def test_threads_that_are_not_faster_are_tried_once(changes, machine, tried):
    found = compare(Machine(same_speed, base=replace(BASE, **changes), machine=machine))
    numbers = [setting.num_threads for setting in settings(found)]
    assert list(dict.fromkeys(numbers)) == tried
    assert [numbers.count(number) for number in tried[1:]] == [1] * len(tried[1:])
    assert found.planned == len(found.trials)
    assert found.advice is None


def test_a_gain_of_less_than_a_twentieth_is_not_advised():
    found = compare(Machine(lambda setting, time: 1000.0 + 49 * (setting.precision == "bf16")))
    assert found.advice is None


def test_a_gain_by_chance_does_not_hold():
    advice = compare(Machine(lambda s, time: 1500.0 if s.precision == "bf16" and time == 1 else 1000.0)).advice
    assert advice.gains == (1.5, 1.0)
    assert not advice.holds


def test_another_batch_size_is_shown_and_never_advised():
    found = compare(Machine(lambda setting, time: 10.0 * setting.batch_size))
    assert found.advice is None
    assert {trial.speed for trial in found.trials} == {1000.0, 4000.0}


def test_a_failure_is_a_row_with_its_reason():
    found = compare(Machine(lambda setting, time: "out of memory" if setting.batch_size == 400 else 1000.0))
    assert len(found.trials) == 8
    assert [(trial.setting.batch_size, trial.error) for trial in found.trials if trial.measurement is None] == [
        (400, "out of memory")
    ] * 4


def test_a_config_that_cannot_be_measured_is_an_error():
    with pytest.raises(ChildFailed, match="no such device"):
        compare(Machine(lambda setting, time: "no such device"))


@pytest.mark.parametrize(
    ("epochs", "asked", "tried"), [(10, None, 0), (10, True, 1), (1000, None, 1), (1000, False, 0)]
)
def test_compile_is_tried_where_it_is_asked_for_or_pays(epochs, asked, tried):
    machine = Machine(lambda setting, time: 1000.0 - 600 * (setting.precision == "bf16"), epochs=epochs)
    found = compare(machine, try_compile=asked)
    compiled = [setting for setting in settings(found) if setting.compile]
    assert compiled == [Setting("fp32", True, True, 100, 1)] * tried  # bf16 is hopelessly slow here
    assert found.compile_skipped == (asked is None and not tried)
    assert found.planned == len(found.trials)


@pytest.mark.parametrize(("epochs", "advised"), [(10, False), (100, True)])  # 10 + 5 s against 10; 10 + 50 against 100
def test_the_time_of_compiling_counts(epochs, advised):
    found = compare(Machine(lambda s, time: 2000.0 if s.compile else 1000.0, epochs=epochs), try_compile=True)
    assert (found.advice is not None) == advised
    if advised:
        assert found.advice.gains[0] == pytest.approx(100 / 60)


def test_a_setting_that_fell_back_was_not_measured():
    note = "warning: training.compile: torch.compile failed, so the model runs uncompiled: no compiler"

    def measure(overrides):
        found = Machine(same_speed)(overrides)
        return replace(found, setting=replace(found.setting, compile=False), notes=[note])

    found = compare(measure, try_compile=True)
    errors = {trial.setting.precision: trial.error for trial in found.trials if trial.setting.compile}
    assert errors == dict.fromkeys(("fp32", "bf16"), "torch.compile failed: no compiler")


def test_a_compiled_config_is_compared_with_itself_uncompiled():
    base = replace(BASE, compile="reduce-overhead")
    found = compare(Machine(lambda s, time: 800.0 if s.compile else 1000.0, base=base, epochs=1000))
    assert {setting.compile for setting in settings(found)} == {"reduce-overhead", False}
    assert len(set(settings(found))) == len(found.trials)
    assert found.advice.setting.compile is False


@pytest.mark.parametrize("count", [1, 5, 8, 9])  # from 8 on the fastest is measured again
def test_a_stop_leaves_what_was_measured(count):
    faster = Machine(lambda setting, time: 2000.0 if setting.precision == "bf16" else 1000.0, stop_after=count)
    found = compare(faster)
    assert (len(found.trials), found.planned) == ((count, 8) if count < 8 else (8, 10))
    assert found.interrupted
    assert found.advice is None


def test_a_stop_before_anything_was_measured():
    with pytest.raises(Interrupted):
        compare(Machine(same_speed, stop_after=0))


def test_the_process_that_compares_imports_no_torch():
    program = "import sys, trainkit.cli.bench, trainkit.workflows.bench; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_child_that_fails_says_why(tmp_path):
    (tmp_path / "config.yaml").write_text("dataset: digits\nmodel: mlp\n")
    measure = measure_apart(tmp_path / "config.yaml", overrides=[], unset=[], seconds=0.1)
    with pytest.raises(ChildFailed) as caught:
        measure(["training.batch_size=0"])
    assert str(caught.value) == (
        "--set training.batch_size=0: training.batch_size: expected a whole number of at least 1, got 0; "
        "the default is 64"
    )
    assert caught.value.exit_code == 2


def test_why_a_child_ended():
    assert failure_line(-9, "") == "ended by SIGKILL, perhaps for want of memory"
    assert failure_line(1, "Traceback\n  x\nRuntimeError: no kernel\n") == "RuntimeError: no kernel"
    assert failure_line(2, "error: c.yaml:1:1: wrong\n    1 | x\n        ^\n") == "c.yaml:1:1: wrong"
    assert failure_line(3, "") == "exit code 3"
