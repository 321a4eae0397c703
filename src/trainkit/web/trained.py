"""A checkpoint's model behind the HTTP server: it reads and answers as ``trainkit predict`` does."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainkit._version import __version__
from trainkit.builders import TrainedModel
from trainkit.data.images import BadImageError, decode_bytes
from trainkit.data.tables import EncodedRows, encode_columns, encode_table
from trainkit.data.transforms import apply_static_transforms
from trainkit.errors import UserError
from trainkit.wording import listed
from trainkit.workflows.predict import make_input_spec, steps_for

Row = NDArray[Any]
Read = list[tuple[str, Row | str]]


class TrainedServed:
    """What the server asks a model for (``Model`` in ``serve_inputs``). Wrong inputs raise ValueError."""

    def __init__(self, trained: TrainedModel, as_cell: Callable[[Any, str], Any]) -> None:
        self.trained, self.as_cell = trained, as_cell
        preprocessing = trained.preprocessing
        self.specs = {resize: make_input_spec(trained, resize=resize) for resize in (False, True)}
        self.spec = self.specs[False]
        self.kind: str = self.spec.kind
        self.labels = list(trained.class_names)
        self.targets = list(trained.target_names)
        self.inputs = list(self.spec.encoding["inputs"]) if self.spec.encoding else []
        with trained.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self.about: Mapping[str, Any] = {
            "name": trained.saved["name"],
            "kind": self.kind,
            "task": "classification" if self.labels else "regression",
            "labels": self.labels,
            "targets": self.targets,
            "columns": self.spec.encoding["columns"] if self.spec.encoding else [],
            "input": {"shape": list(preprocessing["input_shape"])},
            "program": trained.path.name,
            "sha256": digest,
            "signature": {"device": str(trained.device), "precision": trained.precision.value},
            "versions": {"trainkit": __version__, "torch": torch.__version__},
        }

    def read_image(self, data: bytes, *, resize: bool, max_pixels: int) -> Row:
        if not data:
            raise ValueError("empty file (0 bytes)")
        spec = self.specs[resize]
        try:
            decoded = decode_bytes(data, channels=spec.channels, rules=spec.rules, max_pixels=max_pixels)
            image: Row = apply_static_transforms(decoded, steps_for(decoded.shape, spec))
        except BadImageError as error:
            raise ValueError(str(error)) from None
        return image

    def read_csv(self, data: bytes, name: str) -> Read:
        assert self.spec.encoding is not None, "a model for tables knows its columns"
        with tempfile.NamedTemporaryFile(suffix=".csv") as file:
            file.write(data)
            file.flush()
            try:
                found = [row for rows in encode_table(file.name, self.spec.encoding) for row in _rows(rows)]
            except UserError as error:
                raise ValueError(str(error).replace(file.name, name)) from None
            return [(source.replace(file.name, name), row) for source, row in found]

    def read_rows(self, rows: list[dict[str, Any]]) -> Read:
        assert self.spec.encoding is not None, "a model for tables knows its columns"
        given = list(dict.fromkeys(name for row in rows for name in row))
        kinds = {column["name"]: column["kind"] for column in self.spec.encoding["columns"]}
        if missing := [name for name in kinds if name not in given]:
            raise ValueError(f"no column {listed(missing)}, which the model takes; there are {listed(given)}")
        columns = {name: [self.as_cell(row.get(name), kind) for row in rows] for name, kind in kinds.items()}
        return _rows(encode_columns(columns, self.spec.encoding))

    def run(self, batch: Row) -> Row:
        outputs: Row = self.trained.predict(torch.from_numpy(batch)).numpy()
        return outputs

    def example(self) -> Row:
        if self.kind == "image":
            return np.zeros(self.spec.input_shape, self.spec.rules.dtype)
        return np.zeros(self.spec.input_shape, np.float32)


def _rows(rows: EncodedRows) -> Read:
    return [
        (name, rows.bad[place] if place in rows.bad else rows.inputs[place]) for place, name in enumerate(rows.names)
    ]
