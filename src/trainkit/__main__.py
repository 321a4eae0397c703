"""The entry point: runs the command line and turns errors into messages and exit codes."""

from __future__ import annotations

import os
import sys

from trainkit.errors import TrainkitError


def main() -> None:
    """Exit codes: 0 ok, 1 failed while working, 2 the input is wrong, 130 and 143 stopped by SIGINT and SIGTERM."""
    # The search for pydantic plugins reads the metadata of every installed package: a tenth of the time to a message.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

    from trainkit.cli.app import app

    debug = "--debug" in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != "--debug"]
    try:
        app()
    except TrainkitError as error:
        if debug:
            raise
        from trainkit.console import print_error

        print_error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("stopped by SIGINT", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of a pipe has gone (`| head`): point stdout at nothing, so that the flush at exit stays silent.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


if __name__ == "__main__":
    main()
