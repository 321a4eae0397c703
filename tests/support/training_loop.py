"""Run by a test as a process of its own, which forks one child per order: the real command line, torch imported once.

Reads lines of JSON: {"arguments": [...], "cwd", "said", "output", "environment", "crash", "full", "seconds", "signal",
"phase", "at", "times", "naive"}. A child runs ``trainkit ARGUMENTS``. It kills itself at the point ``crash`` of
``file_layers``, finds the disk full from write number ``full`` on, its parent kills it after ``seconds``, or it sends
itself ``signal`` at a ``phase``. It adds the step of each checkpoint to the file ``said`` once it is saved. Answers
with the exit status of each child.
"""

import json
import os
import signal
import sys
import time

import file_layers
import sklearn.datasets  # noqa: F401  (these are imported by the first run otherwise, in every child anew)
import torch
import torch._dynamo

import trainkit.cli.app
import trainkit.data.sources.builtin  # noqa: F401
from trainkit.engine import loop
from trainkit.engine.metrics import ClassificationMetrics
from trainkit.system import durable
from trainkit.workflows.train import finish
from trainkit.workflows.train import run as workflow

torch.set_num_threads(1)  # a forked child has no other threads


def child(order: dict) -> None:
    for name in ("SIGHUP", "SIGTERM", "SIGUSR1", "SIGUSR2"):  # where the tests run under nohup too
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    os.chdir(order["cwd"])
    os.environ.update(order.get("environment", {}))
    output = os.open(order.get("output", "output.txt"), os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ["TRAINKIT_TEST_CRASH"] = order.get("crash", "")
    durable.ops = file_layers.SYNC_FREE
    file_layers.REAL = file_layers.SYNC_FREE  # kill -9 loses nothing that was written; losses of power are simulated
    file_layers.install_crashes()
    if "full" in order:
        durable.ops = file_layers.Failing("write", order["full"], forever=True, real=durable.ops).ops()
    finish.report_training = lambda run, setup, *, frontend: None
    workflow.measure_facts = lambda setup: {}
    announce_saves(order["said"])
    if order.get("naive"):
        from checkpoint_checks import NaiveFolder

        workflow.CheckpointFolder = NaiveFolder
    if "signal" in order:
        send_at(order["phase"], order["signal"], at=order.get("at", 1), times=order.get("times", 1))
    sys.argv = ["trainkit", *order["arguments"]]
    from trainkit.__main__ import main

    main()


def announce_saves(path: str) -> None:
    said = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    save = workflow.RunCheckpointer.save

    def saving(self, state, **rest):
        save(self, state, **rest)
        os.write(said, f"{state['progress']['steps_completed']}\n".encode())

    workflow.RunCheckpointer.save = saving


def send_at(phase: str, signum: int, *, at: int, times: int) -> None:
    """Send this process a signal at the ``at``-th time that it comes to a phase."""
    count = 0

    def come() -> None:
        nonlocal count
        count += 1
        if count == at:
            for _ in range(times):
                os.kill(os.getpid(), signum)

    def coming(function):
        def call(*arguments, **rest):
            come()
            return function(*arguments, **rest)

        return call

    match phase:
        case "preparation":
            import trainkit.data.images.decode_pool as decode_pool

            decode_pool.decode_bytes = coming(decode_pool.decode_bytes)
        case "training":
            loop.train_step = coming(loop.train_step)
        case "validation":
            ClassificationMetrics.update = coming(ClassificationMetrics.update)
        case "saving":
            layer = file_layers.Watched(durable.ops)
            layer.before = lambda name, path, arguments: (
                come() if name == "write" and file_layers.role(path) == "checkpoint" else None
            )
            durable.ops = layer.ops()
        case "scoring":
            finish.score = coming(finish.score)
        case "export":
            finish.export_at_end = coming(finish.export_at_end)
        case "export: a format":
            import trainkit.exports.assemble as assemble

            assemble.torchscript_bytes = coming(assemble.torchscript_bytes)
        case "export: checking":
            import trainkit.exports.bundle as bundle

            bundle.check_programs = coming(bundle.check_programs)
        case "download":
            import trainkit.data.sources.torchvision_sets as downloads

            downloads._socket_timeout = coming(downloads._socket_timeout)
        case "report":
            finish.report_training = coming(finish.report_training)


for line in sys.stdin:
    order = json.loads(line)
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            child(order)
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
        except BaseException:  # noqa: BLE001
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    if "seconds" in order:
        time.sleep(order["seconds"])
        os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    print(json.dumps({"code": os.waitstatus_to_exitcode(status)}), flush=True)
