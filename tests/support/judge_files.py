"""Run by a test as a process of its own: loads each given file and prints what happened, the time and the memory."""

import json
import resource
import sys
import time
from pathlib import Path

from trainkit.checkpoints.archive import DamagedFile
from trainkit.checkpoints.loading import load_checkpoint, load_weights_file


def megabytes(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise AssertionError(field)


def judge(path: str, load) -> dict:
    Path("/proc/self/clear_refs").write_text("5")  # proc(5): forget the peak
    before, start = megabytes("VmRSS"), time.process_time()
    try:
        load(path)
        outcome = "loaded"
    except DamagedFile as error:
        outcome = f"refused: {error.reason}"
    except BaseException as error:  # noqa: BLE001
        outcome = f"{type(error).__name__}: {error}"
    return {"outcome": outcome, "seconds": time.process_time() - start, "megabytes": megabytes("VmHWM") - before}


limit = int(megabytes("VmSize") + 1000) << 20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for path in json.loads(sys.stdin.read()):
    print(json.dumps([judge(path, load_checkpoint), judge(path, load_weights_file)]), flush=True)
