"""``trainkit serve [BUNDLE|CHECKPOINT|RUN]``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trainkit.cli.options import RunsDir
from trainkit.errors import UserError


def serve(
    model: Annotated[
        Path | None,
        typer.Argument(
            metavar="[BUNDLE|CHECKPOINT|RUN]", help="What answers; the best checkpoint of the newest run if left out."
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Where to listen; 0.0.0.0 for all interfaces.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any free port.")] = 8000,
    max_batch: Annotated[int, typer.Option(min=1, help="Rows that are computed at once.")] = 32,
    max_wait_ms: Annotated[float, typer.Option(min=0, help="How long an idle server waits for a fuller batch.")] = 0,
    queue: Annotated[int, typer.Option(min=1, help="Requests that may wait; above it 429.")] = 256,
    max_body: Annotated[str, typer.Option(help="Of a request; above it 413. 512kB, 10MB, ...")] = "10MB",
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds until 504.")] = 30,
    workers: Annotated[int, typer.Option(min=1, help="Processes, each with the model.")] = 1,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Ask for the token in FILE: Authorization: Bearer TOKEN.")
    ] = None,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Answer requests over HTTP with a model, and show a page to try it."""
    from trainkit.web.serve import serve as run
    from trainkit.web.standalone import load_server

    try:
        body = load_server().number_of_bytes(max_body)
    except ValueError:
        raise UserError(f"--max-body {max_body}: a size is expected, such as 512kB or 10MB") from None
    code = run(
        model,
        runs_dir=runs_dir,
        token_file=token_file,
        host=host,
        port=port,
        max_batch=max_batch,
        max_wait_ms=max_wait_ms,
        queue=queue,
        max_body=body,
        timeout=timeout,
        workers=workers,
    )
    if code:
        raise typer.Exit(code)
