"""The entry point: runs the command line and turns errors into messages and exit codes."""

from __future__ import annotations

import gc
import os
import sys
from typing import NoReturn

from trainkit.errors import TrainkitError
from trainkit.system.imports import quick_imports

COUNT_THEIR_OBJECTS = {"onnx", "triton"}
"""Built with nanobind, which complains of every object that is left at the end of the process."""


def main() -> None:
    """Run the command line.

    Exit codes: 0 ok, 1 failed while working, 2 the input is wrong, 130 and 143 stopped by SIGINT and SIGTERM, 141
    nobody reads the output any more.
    """
    # The search for pydantic plugins reads the metadata of every installed package: a tenth of the time to a message.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

    with quick_imports():
        from trainkit.cli.app import app

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


def skip_last_collection() -> None:
    """Leave the memory to the system: the interpreter would look through all that torch has made for half a second."""
    if COUNT_THEIR_OBJECTS.isdisjoint(sys.modules):
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
