"""``trainkit ui [FOLDER]``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def ui(
    folder: Annotated[
        Path, typer.Argument(metavar="[FOLDER]", help="Where runs/, sweeps/ and cv/ are, a folder of runs, or a run.")
    ] = Path("."),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any free port.")] = 8001,
) -> None:
    """Show runs and sweeps in the browser, live: table, curves, findings, configs, several runs overlaid.

    Only this machine can open the pages, and nothing can be changed there.
    """
    from trainkit.web.ui import show

    show(folder, port=port)
