"""What is compared with what, and what is advised: with made-up measurements, so that every case can be had."""

from dataclasses import replace

import pytest
import yaml

from trainkit.config import load_config
from trainkit.errors import TrainkitError
from trainkit.workflows.bench.run import Measurement, Memory, Setting, compare, failure_line, measure_apart

CONFIG = """
dataset: digits
model: {type: cnn, blocks: [{channels: 4}]}
training: {epochs: 10, batch_size: 100, channels_last: true}
"""
BASE = Setting("fp32", True, False, 100)


def write(tmp_path, text=CONFIG):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return load_config(path)


def made_up(setting, speed, **changes):
    found = Measurement(
        setting=setting,
        samples_per_second=speed,
        spread=(speed, speed),
        steps_measured=10,
        epoch_samples=1000,
        epochs=10,
        compile_seconds=0.0,
        memory=Memory(100.0, 200.0, None),
        seconds={"data": 1.0},
        machine={"device": "cpu", "hardware": "", "threads": "1", "torch": ""},
        convolutional=True,
    )
    return replace(found, **changes)


class Machine:
    """Measures in no time: the speeds come from a function of the setting, and of how often it was asked for."""

    def __init__(self, speed, *, base=BASE, stop_after=None, **changes):
        self.speed, self.base, self.stop_after, self.changes = speed, base, stop_after, changes
        self.asked = []

    def __call__(self, overrides, as_it_is):
        if len(self.asked) == self.stop_after:
            return None
        setting = replace(self.base, **yaml.safe_load("\n".join(self.lines(overrides)) or "{}"))
        self.asked.append(setting)
        speed = self.speed(setting, self.asked.count(setting))
        if isinstance(speed, str):
            return speed
        compiling = {"compile_seconds": 10.0} if setting.compile else {}
        return made_up(setting, speed, **compiling, **self.changes)

    @staticmethod
    def lines(overrides):
        return [item.removeprefix("training.").replace("=", ": ") for item in overrides]


def settings(found):
    return [trial.setting for trial in found.trials]


def test_every_precision_layout_and_batch_size_once(tmp_path):
    machine = Machine(lambda setting, time: 1000.0)
    found = compare(write(tmp_path), measure=machine)
    expected = {Setting(p, layout, False, n) for p in ("fp32", "bf16") for layout in (True, False) for n in (100, 400)}
    assert set(settings(found)) == expected
    assert len(machine.asked) == 8 == found.planned
    assert settings(found)[0] == BASE
    assert found.advice is None


def test_a_gpu_is_tried_with_fp16_too(tmp_path):
    machine = Machine(lambda setting, time: 1000.0, machine={"device": "cuda:0"})
    assert {setting.precision for setting in settings(compare(write(tmp_path), measure=machine))} == {
        "fp32",
        "bf16",
        "fp16",
    }


def test_without_convolutions_the_layout_stays(tmp_path):
    machine = Machine(lambda setting, time: 1000.0, convolutional=False)
    assert {setting.channels_last for setting in settings(compare(write(tmp_path), measure=machine))} == {True}


def test_no_batch_is_larger_than_the_data(tmp_path):
    machine = Machine(lambda setting, time: 1000.0, epoch_samples=399)
    assert {setting.batch_size for setting in settings(compare(write(tmp_path), measure=machine))} == {100}


def test_the_fastest_is_advised_as_a_section_that_can_be_pasted(tmp_path):
    faster = lambda setting, time: 1000.0 + 300 * (setting.precision == "bf16") + 100 * (not setting.channels_last)  # noqa: E731
    loaded = write(tmp_path)
    advice = compare(loaded, measure=Machine(faster)).advice
    assert advice.setting == Setting("bf16", False, False, 100)
    assert advice.gains == (pytest.approx(1.4), pytest.approx(1.4))
    assert advice.holds
    assert advice.section == "training: {epochs: 10, batch_size: 100, channels_last: false, precision: bf16}"
    pasted = CONFIG.replace("training: {epochs: 10, batch_size: 100, channels_last: true}", advice.section)
    training = write(tmp_path, pasted).config.training
    assert (training.precision, training.channels_last, training.batch_size) == ("bf16", False, 100)


def test_a_config_without_a_training_section_gets_one_of_the_changes_alone(tmp_path):
    loaded = write(tmp_path, "dataset: digits\nmodel: {type: cnn, blocks: [{channels: 4}]}\n")
    machine = Machine(lambda setting, time: 1000.0 + 300 * (setting.precision == "bf16"))
    assert compare(loaded, measure=machine).advice.section == "training: {precision: bf16}"


def test_a_long_section_keeps_to_its_lines(tmp_path):
    text = "early_stopping: {patience: 3, monitor: val_loss}, ema: {decay: 0.9}, clip_grad_norm: 1.0, shuffle: true"
    loaded = write(tmp_path, CONFIG.replace("channels_last: true", text))
    section = compare(loaded, measure=Machine(lambda setting, time: 1e3 + (setting.precision == "bf16") * 1e3)).advice
    assert section.section.splitlines()[0] == "training:"
    assert yaml.safe_load(section.section)["training"]["early_stopping"] == {"patience": 3, "monitor": "val_loss"}
    assert yaml.safe_load(section.section)["training"]["precision"] == "bf16"


def test_what_is_less_than_a_twentieth_faster_is_not_advised(tmp_path):
    machine = Machine(lambda setting, time: 1000.0 + 49 * (setting.precision == "bf16"))
    found = compare(write(tmp_path), measure=machine)
    assert found.advice is None
    assert len(machine.asked) == 8


def test_another_batch_size_is_shown_and_never_advised(tmp_path):
    found = compare(write(tmp_path), measure=Machine(lambda setting, time: 10.0 * setting.batch_size))
    assert found.advice is None
    assert {trial.measurement.samples_per_second for trial in found.trials} == {1000.0, 4000.0}


def test_what_was_faster_by_chance_does_not_hold(tmp_path):
    machine = Machine(lambda setting, time: 1500.0 if setting.precision == "bf16" and time == 1 else 1000.0)
    advice = compare(write(tmp_path), measure=machine).advice
    assert advice.gains == (1.5, 1.0)
    assert not advice.holds


def test_what_fails_is_a_row_that_says_why(tmp_path):
    machine = Machine(lambda setting, time: "out of memory" if setting.batch_size == 400 else 1000.0)
    found = compare(write(tmp_path), measure=machine)
    assert len(found.trials) == 8
    failed = [trial for trial in found.trials if trial.measurement is None]
    assert {trial.setting.batch_size for trial in failed} == {400}
    assert {trial.error for trial in failed} == {"out of memory"}


def test_a_config_that_cannot_be_measured_is_an_error(tmp_path):
    with pytest.raises(TrainkitError, match="no such device"):
        compare(write(tmp_path), measure=Machine(lambda setting, time: "no such device"))


@pytest.mark.parametrize(
    ("epochs", "asked", "tried"), [(10, None, 0), (10, True, 1), (1000, None, 1), (1000, False, 0)]
)
def test_compile_is_tried_where_it_is_asked_for_or_pays(tmp_path, epochs, asked, tried):
    machine = Machine(lambda setting, time: 1000.0 - 600 * (setting.precision == "bf16"), epochs=epochs)
    found = compare(write(tmp_path), measure=machine, try_compile=asked)
    compiled = [setting for setting in settings(found) if setting.compile]
    assert compiled == [Setting("fp32", True, True, 100)] * tried  # bf16 is hopelessly slow here
    assert found.compile_skipped == (asked is None and not tried)


def test_the_time_that_compiling_takes_counts(tmp_path):
    twice = lambda setting, time: 2000.0 if setting.compile else 1000.0  # noqa: E731
    for epochs, advised in ((10, False), (100, True)):  # 10 s + 5 s against 10 s; 10 s + 50 s against 100 s
        found = compare(write(tmp_path), measure=Machine(twice, epochs=epochs), try_compile=True)
        assert (found.advice is not None) == advised
        if advised:
            assert found.advice.gains[0] == pytest.approx(100 / 60)
            assert yaml.safe_load(found.advice.section)["training"]["compile"] is True


def test_a_setting_that_fell_back_was_not_measured(tmp_path):
    note = "warning: training.compile: torch.compile failed, so the model runs uncompiled: no compiler"

    def measure(overrides, as_it_is):
        found = Machine(lambda setting, time: 1000.0)(overrides, as_it_is)
        return replace(found, setting=replace(found.setting, compile=False), notes=[note])

    found = compare(write(tmp_path), measure=measure, try_compile=True)
    errors = {trial.setting.precision: trial.error for trial in found.trials if trial.setting.compile}
    assert errors == dict.fromkeys(("fp32", "bf16"), "torch.compile failed: no compiler")


def test_a_compiled_config_is_compared_with_itself_uncompiled(tmp_path):
    base = replace(BASE, compile="reduce-overhead")
    machine = Machine(lambda setting, time: 800.0 if setting.compile else 1000.0, base=base, epochs=1000)
    found = compare(write(tmp_path), measure=machine)
    modes = {setting.compile for setting in settings(found)}
    assert modes == {"reduce-overhead", False}
    assert len(set(settings(found))) == len(found.trials)
    assert yaml.safe_load(found.advice.section)["training"]["compile"] is False


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_stop_leaves_what_was_measured(tmp_path, count):
    found = compare(write(tmp_path), measure=Machine(lambda setting, time: 1000.0, stop_after=count))
    if count == 0:
        assert found is None
    else:
        assert len(found.trials) == count
        assert found.planned == 8
        assert found.advice is None


def test_a_stop_while_it_is_measured_again_gives_no_advice(tmp_path):
    faster = lambda setting, time: 2000.0 if setting.precision == "bf16" else 1000.0  # noqa: E731
    for stop_after in (8, 9):
        found = compare(write(tmp_path), measure=Machine(faster, stop_after=stop_after))
        assert len(found.trials) == 8
        assert found.advice is None


def test_a_child_that_fails_says_why(tmp_path):
    write(tmp_path)
    measure = measure_apart(tmp_path / "config.yaml", overrides=[], unset=[], seconds=0.1, should_stop=lambda: False)
    assert measure(["training.batch_size=0"], False) == (
        "--set training.batch_size=0: training.batch_size: expected a whole number of at least 1, got 0; "
        "the default is 64"
    )


def test_last_words():
    assert failure_line(-9, "") == "ended by SIGKILL, perhaps for want of memory"
    assert failure_line(1, "Traceback\n  x\nRuntimeError: no kernel\n") == "RuntimeError: no kernel"
    assert failure_line(2, "error: c.yaml:1:1: wrong\n    1 | x\n        ^\n") == "c.yaml:1:1: wrong"
    assert failure_line(3, "") == "exit code 3"
