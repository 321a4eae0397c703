"""The files of a bundle that serve and predict, as modules of this process; no torch is imported for them."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from trainkit.errors import UserError

TEMPLATES = Path(__file__).parents[1] / "exports" / "templates"
NEEDED = ("starlette", "uvicorn", "python_multipart")


def load_server() -> Any:
    """``serve.py`` of bundles.

    Raises:
        UserError: what it needs is not installed.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"serve needs {', '.join(missing)}; install them: pip install {' '.join(missing)}")
    # In front of the working folder, which may have a serve.py of its own: a bundle's, whose sums were not checked.
    sys.path.insert(0, str(TEMPLATES))
    try:
        return importlib.import_module("serve")
    finally:
        sys.path.remove(str(TEMPLATES))


def load_predict(bundle: Path, kind: str) -> ModuleType:
    """trainkit's own ``predict.py`` and ``front.py`` as though they lay in a bundle: nothing of it runs."""
    _load("front", TEMPLATES / "static_transforms.py", bundle)
    return _load("predict", TEMPLATES / f"predict_{kind}.py", bundle)


def _load(name: str, source: Path, folder: Path) -> ModuleType:
    module = ModuleType(name)
    module.__file__ = str(folder / f"{name}.py")
    sys.modules[name] = module
    exec(compile(source.read_text(encoding="utf-8"), str(source), "exec"), module.__dict__)
    return module
