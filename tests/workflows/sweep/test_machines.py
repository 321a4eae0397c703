"""Several machines on one study in a real PostgreSQL: two processes in two folders, of which one is killed."""

import os
import subprocess
import sys
import time
from pathlib import Path

import postgres
import pytest
import sweeps

COUNT = 4
TEXT = f"sampler: random\nbudget: {{trials: {COUNT}}}\n"
PROGRAM = Path(sweeps.__file__).with_name("other_machine.py")


def start(folder, machine, url):
    sweeps.write_sweep(folder, TEXT)
    with open(folder / "output.txt", "ab") as output:
        return subprocess.Popen(
            [sys.executable, str(PROGRAM), "sweep", "search.yaml", "--storage", url],
            cwd=folder,
            stdout=output,
            stderr=output,
            env=os.environ | {"TRAINKIT_TEST_MACHINE": machine},
        )


def lines(folder):
    return (folder / "output.txt").read_text().splitlines()


def wait_for(ready, *processes, seconds=120):
    end = time.monotonic() + seconds
    while not ready():
        assert all(one.poll() is None for one in processes), "a sweep ended too early"
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.skipif(
    postgres.programs() is None, reason="PostgreSQL is not installed (Debian: apt-get install postgresql)"
)
def test_a_dead_machines_trial_is_taken_over(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    with postgres.server() as url:
        dying = start(first, "machine-1", url)
        wait_for(lambda: (first / "output.txt").exists() and any("starts" in line for line in lines(first)), dying)
        living = start(second, "machine-2", url)
        wait_for(lambda: lines(first)[-1].endswith("starts"), dying)
        lost = lines(first)[-1].split(":")[0]
        sweeps.kill_all(dying)
        assert living.wait(timeout=180) == 0, lines(second)
        said = lines(second)
        assert f"{lost}: taken over from machine-1, which has given no sign of life" in said
        assert lost in sweeps.trial_runs(second)
        # The runs that the dead machine had finished are not done again.
        done = {line.split(":")[0] for line in lines(first) if " val_accuracy " in line}
        assert not done & set(sweeps.trial_runs(second))
        assert len(done | set(sweeps.trial_runs(second))) == COUNT
        result = sweeps.run(second, "--storage", url)
    assert [one["state"] for one in result["trials"]] == ["complete"] * COUNT
    assert (second / "sweeps/search/best.yaml").is_file()
