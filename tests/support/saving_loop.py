"""Run by a test as a process of its own, which forks one child per order: saves in a loop until it is killed.

Reads lines of JSON {"folder", "crash", "kind"}; the child kills itself at the point ``crash``, or the parent kills it
after ``seconds``. Each save is announced on stdout only when it has returned.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import file_layers
import torch
from checkpoint_checks import NaiveFolder, save

from trainkit.checkpoints.folder import CheckpointFolder

torch.set_num_threads(1)  # a forked child has no other threads


def child(order: dict) -> None:
    os.environ["TRAINKIT_TEST_CRASH"] = order.get("crash", "")
    file_layers.install_crashes()
    folder = {"trainkit": CheckpointFolder, "naive": NaiveFolder}[order["kind"]](Path(order["folder"]))
    with open(f"{order['folder']}.marks", "a") as marks:
        folder.recover()
        for step in range(order["first"], order["first"] + 8 if order.get("crash") else 10**6):
            best = step % 3 == 0
            os.write(marks.fileno(), f"saving {step}{' best' if best else ''}\n".encode())
            save(folder, step, best=best, keep_last=1 + step % 2)
            os.write(marks.fileno(), f"saved {step}{' best' if best else ''}\n".encode())


for line in sys.stdin:
    order = json.loads(line)
    pid = os.fork()
    if pid == 0:
        try:
            child(order)
        finally:
            os._exit(3)
    if "seconds" in order:
        time.sleep(order["seconds"])
        os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    print(json.dumps({"killed": os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL}), flush=True)
