"""The entry point: runs the command line and turns errors into messages and exit codes."""

from __future__ import annotations

import gc
import io
import os
import sys
from typing import NoReturn

from trainkit.errors import TrainkitError

LEAK_CHECKED = {"onnx", "triton"}
"""Modules built with nanobind, which warns about every object that is left at the end of the process."""


def main() -> None:
    """Run the command line.

    Exit codes: 0 ok, 1 failed while working, 2 the input is wrong, 128 + n stopped by signal n (130 by SIGINT), 141
    nobody reads the output any more.
    """
    # The search for pydantic plugins reads the metadata of every installed package: a tenth of the time to a message.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

    # Imports make objects by the hundred thousand, which stay. Python looks for garbage among them after every 700 new
    # ones, which takes a tenth of the time of `import torch`.
    gc.set_threshold(10_000)
    use_utf8()
    from trainkit.cli.app import app
    from trainkit.system import own_process

    own_process()

    debug = "--debug" in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != "--debug"]
    try:
        try:
            app()
        finally:
            skip_last_collection()
            sys.stdout.flush()  # here, where a closed pipe can still be dealt with, not while the interpreter ends
    except TrainkitError as error:
        if debug:
            raise
        from trainkit.cli.console import print_error

        print_error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("stopped by SIGINT", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        end_at_closed_pipe()
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # typer and rich make an exit with code 1 of it
            end_at_closed_pipe()
        raise


def use_utf8() -> None:
    """Read and write files in UTF-8 whatever the locale is, and escape what the terminal's encoding does not have.

    A name such as 猫 is part of the data: it must not stop the work on a terminal that cannot show it. In a locale that
    is not UTF-8, Python would take the names of files for mojibake or for no text at all. Its UTF-8 mode, the default
    from Python 3.15 on, has to be on from the start of the process, so the process starts again in place.
    """
    stdout_encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    if os.name == "posix" and sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        environment = {"PYTHONIOENCODING": stdout_encoding, **os.environ, "PYTHONUTF8": "1"}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            open_nowhere(number, name)
        if isinstance(getattr(sys, name), io.TextIOWrapper):  # something else in a test
            getattr(sys, name).reconfigure(errors="backslashreplace")


def open_nowhere(number: int, name: str) -> None:
    """A stream that is closed at the start (``2>&-``) goes nowhere.

    Else the next file that is opened would have its number, and what a library prints would land in that file.
    """
    null = os.open(os.devnull, os.O_WRONLY)
    if null != number:
        os.dup2(null, number)
        os.close(null)
    setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", closefd=False))


def skip_last_collection() -> None:
    """Leave the memory to the system: the last collection would look through all objects of torch for half a second."""
    if LEAK_CHECKED.isdisjoint(sys.modules):
        gc.freeze()


def end_at_closed_pipe() -> NoReturn:
    """End as ``cat`` does when its reader has gone (``| head``): without a word.

    Unix tools die of SIGPIPE then, which a shell reports as 141 = 128 + 13. Scripts that set pipefail know that code,
    and 0 would claim that all was written.
    """
    # What is still in the buffer goes nowhere, so that the flush at exit is silent too.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(141)


if __name__ == "__main__":
    main()
