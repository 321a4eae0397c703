"""``trainkit ui``: runs and sweeps in the browser, live. Read-only, for this machine alone, without torch."""

from __future__ import annotations

import logging
import socket
from pathlib import Path
from urllib.parse import quote

from trainkit.errors import UserError

HOST = "127.0.0.1"


def show(folder: Path, *, port: int) -> None:
    """Serve the pages until a signal.

    Raises:
        UserError: there is no such folder, the port is taken, or the extra is not installed.
    """
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "there is no such folder"
        raise UserError(f"{folder}: {what}; give one with runs in it, or in its runs/")
    page = ""
    if (folder / "run.json").exists():  # a run itself: the others beside it are shown too
        page, folder = f"/#/run/{quote(folder.resolve().name)}", folder.resolve().parent
    try:
        import uvicorn

        from trainkit.web.pages import make_app
    except ImportError:
        raise UserError("the pages need starlette and uvicorn: pip install starlette uvicorn") from None
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
            listener.listen(128)  # from here on a browser may come
        except OSError as error:
            raise UserError(f"--port {port}: {error.strerror}; another one: --port 0 takes any that is free") from None
        print(f"http://{HOST}:{listener.getsockname()[1]}{page} shows {folder}; Ctrl-C ends it", flush=True)
        # Streams of a page that is open never end by themselves: they are cut after a second.
        config = uvicorn.Config(make_app(folder), log_level=logging.CRITICAL, timeout_graceful_shutdown=1)
        uvicorn.Server(config).run(sockets=[listener])
