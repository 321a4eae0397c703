"""Threads and how long they spin, on an idle machine and beside programs that keep a core busy each.

    TRAINKIT_TEST_DATA=... python benchmarks/threads.py --configs digits_cnn mnist_cnn --busy 0 1 3 --repeats 3

Samples a second by ``trainkit bench --single``; the settings take turns. A busy program is a loop in a session of its
own, as of another user or in another terminal.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainkit.system import count_cores

CONFIGS = Path(__file__).parents[1] / "configs"
DEFAULT_OF_OPENMP = 300_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", nargs="+", default=["digits_cnn", "mnist_cnn"])
    parser.add_argument("--busy", nargs="+", type=int, default=[0, 1, 3])
    parser.add_argument("--spin", nargs="+", type=int, default=[10_000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the busy programs are ended too
    settings = [(count_cores(), spin) for spin in (DEFAULT_OF_OPENMP, *options.spin)] + [(1, DEFAULT_OF_OPENMP)]
    for config in options.configs:
        for busy in options.busy:
            found: dict[tuple[int, int], list[float]] = {setting: [] for setting in settings}
            with busy_programs(busy):
                for _ in range(options.repeats):
                    for setting, speeds in found.items():
                        speeds.append(speed(config, *setting, seconds=options.seconds))
            before = statistics.median(found[settings[0]])
            for (threads, spin), speeds in found.items():
                median = statistics.median(speeds)
                print(
                    f"{config}  {busy} busy  {threads} threads, spin {spin:7,}: {median:8,.0f} samples/s "
                    f"({min(speeds):,.0f} - {max(speeds):,.0f}), {median / before:.2f} times",
                    flush=True,
                )


def speed(config: str, threads: int, spin: int, *, seconds: float) -> float:
    """Samples a second of training, in a process of its own."""
    command = [sys.executable, "-m", "trainkit", "bench", str(CONFIGS / f"{config}.yaml"), "--single", "--json", "-q"]
    command += ["--seconds", str(seconds), "--set", f"training.num_threads={threads}"]
    if "mnist" in config:
        command += ["--set", f"dataset.root={os.environ['TRAINKIT_TEST_DATA']}"]
    environment = {**os.environ, "GOMP_SPINCOUNT": str(spin)}
    for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY"):
        environment.pop(name, None)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout)["samples_per_second"])


@contextmanager
def busy_programs(number: int) -> Iterator[None]:
    loop = [sys.executable, "-S", "-c", "while True: pass"]
    programs = [subprocess.Popen(loop, start_new_session=True) for _ in range(number)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


if __name__ == "__main__":
    main()
