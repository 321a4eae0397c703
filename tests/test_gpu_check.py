"""scripts/gpu_check, tried on the CPU: its lines, its exit code, and that it sees a fault."""

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "gpu_check"


def gpu_check(work: Path, *words: str, source: Path = ROOT / "src") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, *words, "--out", "found.jsonl"],
        cwd=work,
        env={**os.environ, "PYTHONPATH": str(source), "TMPDIR": str(work)},
        capture_output=True,
        text=True,
    )


def records(work: Path) -> list[dict]:
    return [json.loads(line) for line in (work / "found.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_each_check_leaves_a_line_and_a_record(tmp_path):
    done = gpu_check(tmp_path, "--device", "cpu", "--quick", "--only", "numbers,syncs")
    assert done.returncode == 0, done.stdout + done.stderr
    found = {one["check"]: one for one in records(tmp_path)}
    assert {name: one["status"] for name, one in found.items()} == {"syncs": "skipped", "numbers": "passed"}
    assert found["syncs"]["why"] == "needs CUDA"
    assert set(found["numbers"]["details"]["cnn"]) == {"fp32", "tf32", "bf16"}
    *lines, end = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [[one["status"], one["check"]] for one in found.values()]
    assert end.startswith("no check failed in ")
    assert [path.name for path in tmp_path.iterdir()] == ["found.jsonl"], "the work folder is left behind"


def with_fault(work: Path, file: str, fault: str) -> Path:
    """A copy of the sources with some lines at the end of a file."""
    shutil.copytree(ROOT / "src", work / "src", ignore=shutil.ignore_patterns("__pycache__"))
    with (work / "src" / "trainkit" / file).open("a") as source:
        source.write(fault)
    return work / "src"


@pytest.mark.slow
def test_an_order_of_samples_that_changes_from_run_to_run_is_found(tmp_path):
    fault = "\n\n_drawn = permutation\npermutation = lambda seed, *rest: _drawn(time.time_ns() % 1000, *rest)\n"
    source = with_fault(tmp_path, "runtime/seeding.py", f"\n\nimport time{fault}")
    done = gpu_check(tmp_path, "--device", "cpu", "--quick", "--only", "exact_pools", source=source)
    assert done.returncode == 1, done.stdout + done.stderr
    (found,) = records(tmp_path)
    assert found["status"] == "failed"
    assert found["faults"][0].startswith("adaptive average pool, overlapping max pool: {'twice': '")
    assert "        ! adaptive average pool" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("FAILED in ")


@pytest.mark.slow
def test_a_guard_that_lets_everything_pass_is_found(tmp_path):
    source = with_fault(tmp_path, "engine/nonfinite.py", "\n\nGuard.allows = lambda self, *args, **keys: True\n")
    done = gpu_check(tmp_path, "--device", "cpu", "--quick", "--only", "guard", source=source)
    assert done.returncode == 1, done.stdout + done.stderr
    (found,) = records(tmp_path)
    assert any(fault.startswith("sgd, momentum, gradient: ") for fault in found["faults"])


@pytest.mark.slow
def test_a_check_is_ended_when_the_budget_is_spent(tmp_path):
    """What comes after it is not begun."""
    words = ["--device", "cpu", "--quick", "--only", "exact_tables,selftest", "--budget", "19"]
    done = gpu_check(tmp_path, *words)
    found = {one["check"]: one for one in records(tmp_path)}
    assert found["selftest"]["why"].endswith("s of the budget are left")
    if found["exact_tables"]["status"] == "failed":  # a fast machine is through before
        assert found["exact_tables"]["faults"][-1].startswith("ended after ")
        assert done.returncode == 1


@pytest.fixture
def gpu_check_here(monkeypatch):
    """The script in this process, which has imported PyTorch; returns its exit code."""

    def run(*words: str) -> int:
        monkeypatch.syspath_prepend(SCRIPT.parent)
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *words])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        return ended.value.code

    return run


def test_unknown_checks_are_named(gpu_check_here, capsys):
    assert gpu_check_here("--only", "guard,speeed") == 2
    assert "no check is named speeed; --list names them" in capsys.readouterr().err


def test_the_list_says_what_each_check_is(gpu_check_here, capsys):
    assert gpu_check_here("--list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[0] == "environment"
    assert all(len(line.split()) > 5 for line in lines)


@pytest.mark.slow
def test_the_benchmark_of_the_gpu_runs_on_the_cpu(tmp_path):
    words = [ROOT / "benchmarks" / "gpu.py", "--device", "cpu", "--quick", "--out", tmp_path / "found.json"]
    done = subprocess.run(
        [sys.executable, *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found["results"]) == 5
    for loops in found["results"].values():
        for name in ("trainkit", "hand-written"):
            assert len(loops[name]["seconds"]) == 1, done.stderr
    assert found["results"]["pictures of 224 px, from the map"]["trainkit"]["said"][-1].startswith("data: map")
    assert found["results"]["pictures of 224 px, from workers"]["trainkit"]["said"][-1].startswith("data: workers")
    assert "| CIFAR-size ResNet | hand-written |" in done.stdout
