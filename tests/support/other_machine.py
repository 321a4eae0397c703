"""``trainkit ARGUMENTS`` as on the machine that TRAINKIT_TEST_MACHINE names, with signs of life in quick succession."""

import os
import socket

from trainkit.__main__ import main
from trainkit.system import processes

if __name__ == "__main__":
    from trainkit.workflows.sweep import study

    name = os.environ["TRAINKIT_TEST_MACHINE"]
    processes._machine = lambda: processes._digest(name)
    socket.gethostname = lambda: name
    study.BEAT_SECONDS, study.GRACE_SECONDS = 0.2, 3.0
    main()
