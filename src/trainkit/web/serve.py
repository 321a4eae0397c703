"""``trainkit serve``: a bundle, a checkpoint or a run behind the HTTP server that bundles carry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainkit.errors import UserError
from trainkit.web.standalone import TEMPLATES, load_predict, load_server

SIGNATURE = "signature.json"
PROGRAMS = (".pt", ".pt2", ".onnx")


def serve(model: Path | None, *, runs_dir: Path = Path("runs"), token_file: Path | None = None, **options: Any) -> int:
    """Answer requests until a signal; returns the exit code. Torch is imported only where the model needs it.

    Args:
        model: a bundle's folder or a program in it, a checkpoint, or a run; None for the newest run.
        options: those of ``Options`` in the server.

    Raises:
        UserError: the model, a file or the address cannot be used.
    """
    server = load_server()
    page = (TEMPLATES / "serve.html").read_text(encoding="utf-8")
    try:
        token = server.read_token(token_file) if token_file is not None else None
        make_model = make_bundle(server, model) if is_bundle(model) else make_trained(server, model, runs_dir)
        return int(server.run_server(make_model, server.Options(token=token, **options), page))
    except ValueError as error:
        raise UserError(str(error)) from None


def is_bundle(model: Path | None) -> bool:
    """Whether this is a bundle's folder, or a program in one."""
    if model is None:
        return False
    return (model / SIGNATURE).is_file() or (model.suffix in PROGRAMS and (model.parent / SIGNATURE).is_file())


def make_bundle(server: Any, path: Path | None) -> Any:
    """What loads the model of a bundle; its files have been compared with their sums.

    Raises:
        ValueError: a file has changed since the export.
    """
    assert path is not None
    folder, program = (path, None) if path.is_dir() else (path.parent, path.name)
    server.check_sums(folder)
    import json

    try:
        kind = json.loads((folder / SIGNATURE).read_text(encoding="utf-8"))["kind"]
        predict = load_predict(folder, kind)
    except (OSError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / SIGNATURE} cannot be used ({error}); export the bundle again") from None
    return lambda: server.Bundle(folder, predict, program)


def make_trained(server: Any, path: Path | None, runs_dir: Path) -> Any:
    """What loads a checkpoint's model."""

    def make() -> Any:
        from trainkit.builders import open_trained
        from trainkit.system import Frontend
        from trainkit.web.trained import TrainedServed
        from trainkit.workflows.find import find_checkpoint

        try:
            checkpoint = find_checkpoint(path, runs_dir=runs_dir, frontend=Frontend())
            return TrainedServed(open_trained(checkpoint, device="auto"), server.as_cell)
        except UserError as error:
            raise ValueError(str(error)) from None  # what the server expects, in a worker too

    return make
