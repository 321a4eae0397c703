"""The entry point: runs the command line and turns errors into messages and exit codes."""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import NoReturn

from trainkit.cli import streams
from trainkit.errors import Interrupted, LostRank, SharedError, TrainkitError, UserError

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
    streams.guard()
    from trainkit.system import launched, own_process, remember_ctrl_c

    ctrl_c = remember_ctrl_c()
    own_process()
    debug = "--debug" in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != "--debug"]
    try:
        launched.say_pid()
        try:
            from trainkit.cli.app import app

            app()
        finally:
            skip_last_collection()
            sys.stdout.flush()  # here, where a closed pipe can still be dealt with, not while the interpreter ends
    except TrainkitError as error:
        if ctrl_c and not isinstance(error, Interrupted):
            end_at_ctrl_c(error)
        if debug:
            raise
        from trainkit.cli.console import print_error

        if isinstance(error, streams.OutputError):
            streams.drop_the_rest()
        if not is_said_elsewhere(error):
            print_error(error)
        fail(error, str(error), error.exit_code)
    except KeyboardInterrupt as error:
        end_at_ctrl_c(error)
    except BrokenPipeError:
        end_at_closed_pipe()
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # typer and rich make an exit with code 1 of it
            end_at_closed_pipe()
        if ctrl_c and error.code:  # typer makes an exit with code 130 of it
            end_at_ctrl_c(error)
        if not error.code:
            launched.say_end(launched.End(0, ""))
        elif not getattr(error.__context__, "is_said", False):
            reason = getattr(error.__context__, "format_message", lambda: "the reason is on stderr")()
            fail(error, reason, error.code)
        raise
    except Exception as error:
        if ctrl_c:
            end_at_ctrl_c(error)
        message = None if debug else own_message(error)
        launched.say_end(launched.End(1, message or f"{type(error).__name__}: {error}"))
        print_json_error(error, message or f"{type(error).__name__}: {error}", 1)
        if message is None:
            raise
        print(f"error: {message}; --debug shows the traceback", file=sys.stderr)
        sys.exit(1)


def end_at_ctrl_c(error: BaseException) -> NoReturn:
    """End at a Ctrl-C that came before the command listened for it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one has nothing left to stop
    print("stopped by SIGINT", file=sys.stderr)
    fail(error, "stopped by SIGINT", 130)


def own_message(error: Exception) -> str | None:
    """The line of a plug-in that failed, and how; None where the error does not come from one."""
    plugins = sys.modules.get("trainkit.plugins")
    return None if plugins is None else plugins.explain(error)


def is_said_elsewhere(error: BaseException) -> bool:
    """Whether the first of several processes, or the one that started them, has the same to say."""
    from trainkit.system import launched

    if isinstance(error, LostRank):
        return launched.rank() > 0 or launched.by_trainkit()
    if isinstance(error, Interrupted) and launched.has_failed():
        return True
    return launched.rank() > 0 and isinstance(error, Interrupted | SharedError | UserError)


def fail(error: BaseException, message: str, exit_code: int | str) -> NoReturn:
    """End with an exit code, after the failure as JSON where that was asked for.

    A process that trainkit started with others, and that has nothing to be started again for, leaves its code to be
    read and ends with 0: who watches them would end the others, or start all of them again.
    """
    from trainkit.system import launched

    try:
        if not is_said_elsewhere(error):
            print_json_error(error, message, exit_code)
        sys.stdout.flush()
    except BrokenPipeError:
        end_at_closed_pipe()
    end = launched.End(exit_code if isinstance(exit_code, int) else 1, message, isinstance(error, LostRank))
    if launched.say_end(end) and (end.lost or end.exit_code != 1):
        exit_code = 0
    sys.exit(exit_code)


def print_json_error(error: BaseException, message: str, exit_code: int | str) -> None:
    """The failure on stdout where the command prints JSON, and has not printed a document yet: one of all processes."""
    from trainkit.system import launched

    if "--json" not in sys.argv or getattr(sys.stdout, "has_text", True) or launched.rank() > 0:
        return
    from trainkit.cli.console import error_as_json, print_json

    print_json({"error": error_as_json(error, message, exit_code)})


def use_utf8() -> None:
    """Read and write files in UTF-8 whatever the locale is.

    A name such as 猫 is part of the data: it must not stop the work on a terminal that cannot show it. In a locale that
    is not UTF-8, Python would take the names of files for mojibake or for no text at all. Its UTF-8 mode, the default
    from Python 3.15 on, has to be on from the start of the process, so the process starts again in place.
    """
    stdout_encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    if os.name == "posix" and sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        environment = {"PYTHONIOENCODING": stdout_encoding, **os.environ, "PYTHONUTF8": "1"}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def skip_last_collection() -> None:
    """Leave the memory to the system: the last collection would look through all objects of torch for half a second."""
    if LEAK_CHECKED.isdisjoint(sys.modules):
        gc.freeze()


def end_at_closed_pipe() -> NoReturn:
    """End as ``cat`` does when its reader has gone (``| head``): without a word.

    Unix tools die of SIGPIPE then, which a shell reports as 141 = 128 + 13. Scripts that set pipefail know that code,
    and 0 would claim that all was written.
    """
    from trainkit.system import launched

    streams.drop_the_rest()
    sys.exit(0 if launched.say_end(launched.End(141, "nobody reads the output")) else 141)


if __name__ == "__main__":
    main()
