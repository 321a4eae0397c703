"""The files of a bundle that serve it: over HTTP without trainkit, in a container, in Triton."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from trainkit.errors import UserError

TEMPLATES = Path(__file__).with_name("templates")
SERVER = (
    "serve.py",
    *(f"serve_{part}.py" for part in ("batches", "http", "inputs", "openapi", "process")),
    "serve.html",
)
OLDEST = {"starlette": "0.47", "uvicorn": "0.35", "python-multipart": "0.0.20", "onnxruntime": "1.20", "h11": "0.16"}
"""Versions that will do, for packages that are not installed here."""
DOCKERFILE = """\
FROM python:{python}-slim
WORKDIR /model
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt
COPY . .
USER 65534:65534
ENV PYTHONDONTWRITEBYTECODE=1
EXPOSE 8000
HEALTHCHECK CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/ready')"]
CMD ["python", "serve.py", "--host", "0.0.0.0"]
"""
TRITON_TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32", "float64": "TYPE_FP64"}
TRITON_MAX_BATCH = 64


def server_files(kind: str, formats: set[str], python: str) -> dict[str, bytes]:
    """``serve.py`` and what it needs, ``requirements.txt`` and ``Dockerfile``, by name.

    Args:
        formats: of the programs.
        python: the version that the container has, such as 3.11.
    """
    packages = ["numpy", *(["pillow"] if kind == "image" else [])]
    packages += ["onnxruntime" if "onnx" in formats else "torch", "starlette", "uvicorn", "h11", "python-multipart"]
    files = {name: (TEMPLATES / name).read_bytes() for name in SERVER}
    files["requirements.txt"] = "".join(f"{_pinned(package)}\n" for package in packages).encode()
    files["Dockerfile"] = DOCKERFILE.format(python=python).encode()
    return files


def _pinned(package: str) -> str:
    """``numpy==2.4.6``, as it is here; without what a build adds to a version (``+cu130``)."""
    try:
        return f"{package}=={metadata.version(package).partition('+')[0]}"
    except metadata.PackageNotFoundError:
        return f"{package}>={OLDEST[package]}"


def triton_files(
    name: str, labels: list[str], programs: Mapping[str, Mapping[str, Any]], files: Mapping[str, bytes]
) -> dict[str, bytes]:
    """A model repository of Triton with the ONNX program: ``tritonserver --model-repository BUNDLE/triton``.

    Raises:
        UserError: there is no ONNX program.
    """
    found = [(file, entry) for file, entry in programs.items() if entry["format"] == "onnx"]
    if not found:
        raise UserError("--triton takes the ONNX program; add --onnx")
    file, entry = found[0]
    lines = [
        f'name: "{name}"',
        'backend: "onnxruntime"',
        f"max_batch_size: {TRITON_MAX_BATCH}",
        f"input [{_tensor(entry['input'])}]",
        f"output [{', '.join(_tensor(output, labels=bool(labels)) for output in entry['outputs'])}]",
        "dynamic_batching {}",
        "instance_group [{ kind: KIND_AUTO }]",
    ]
    folder = f"triton/{name}"
    repository = {f"{folder}/config.pbtxt": "\n".join([*lines, ""]).encode(), f"{folder}/1/model.onnx": files[file]}
    if labels:
        repository[f"{folder}/labels.txt"] = "".join(f"{label}\n" for label in labels).encode()
    return repository


def _tensor(value: Mapping[str, Any], *, labels: bool = False) -> str:
    dims = ", ".join(str(size) if isinstance(size, int) else "-1" for size in value["shape"][1:])
    named = ', label_filename: "labels.txt"' if labels else ""
    return f'{{ name: "{value["name"]}", data_type: {TRITON_TYPES[value["dtypes"][0]]}, dims: [{dims}]{named} }}'
