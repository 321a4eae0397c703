"""What ``trainkit ui`` shows: runs under a folder, read again only where their files have changed. Never torch."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trainkit.system import RunDir, list_runs
from trainkit.wording import counted
from trainkit.workflows.runs import findings_of, status_of, summarize

SHOWN = ("report.html", "config.yaml", "config.resolved.yaml", "train.log", "run.json", "metrics.jsonl")
"""Files of a run that are given out, beside the pictures in ``plots/``."""


Rows = dict[str, dict[str, Any]]
"""By id, what the table shows of a run."""


class Watched:
    """The runs below a folder: its own, and those of ``runs/``, ``sweeps/NAME/`` and ``cv/NAME/``.

    An id is the path of a run's folder from there; only ids of runs that were found are looked up.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._rows: Rows = {}
        self._stamps: dict[str, tuple[float, ...]] = {}
        """By id: when the files were changed that the row was read from."""
        self._lock = threading.Lock()

    def folders(self) -> Iterator[tuple[Path, str, str]]:
        """Each folder of runs, with its sweep or cross-validation and the page of it."""
        yield self.root, "", ""
        yield self.root / "runs", "", ""
        for kind in ("sweeps", "cv"):
            for folder in sorted((self.root / kind).glob("*/runs")):
                page = folder.parent / "report.html"
                yield folder, folder.parent.name, self._id(page) if page.is_file() else ""

    def find(self, run_id: str) -> RunDir | None:
        """The run with this id; None where there is none. Paths that lead elsewhere are no ids."""
        run, known = RunDir(self.root / run_id), run_id in self._rows or run_id in self.look()
        return run if known and run.path.is_dir() else None

    def look(self) -> Rows:
        """All runs; those whose files have changed are read again."""
        with self._lock:
            rows: Rows = {}
            for folder, group, page in self.folders():
                for run in list_runs(folder):
                    run_id, stamp = self._id(run.path), _stamp(run)
                    known = self._rows.get(run_id)
                    if known is None or self._stamps[run_id] != stamp or known["status"] == "running":
                        known = {"id": run_id, "folder": run.path.name, **_row(run)}
                    rows[run_id] = {**known, "group": group, "page": page}
                    self._stamps[run_id] = stamp
            self._rows = rows
            return rows

    def page_of(self, path: str) -> Path | None:
        """The page of a sweep or a cross-validation, by its path from the root."""
        return next((self.root / page for _, _, page in self.folders() if page and page == path), None)

    def _id(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def change(before: Rows, now: Rows) -> dict[str, Any] | None:
    """The rows that are new or differ, and the ids that are gone; None where nothing has changed."""
    rows = [row for run_id, row in now.items() if before.get(run_id) != row]
    gone = [run_id for run_id in before if run_id not in now]
    return {"rows": rows, "gone": gone} if rows or gone else None


def details(run: RunDir) -> dict[str, Any]:
    """A run with its findings, config and files."""
    info = run.read_info()
    status = status_of(run, info)
    config, origins = info.get("config", {}), info.get("origins", {})
    log = Tail(run.metrics)
    log.read()
    problems = [log.problem] if log.problem else []
    try:
        findings = [] if not config else findings_of(run, info, status)
    except (ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError) as error:
        findings = []
        problems.append(f"{run.info} or {run.metrics.name} has values that no findings can be made of: {error}")
    files = [name for name in SHOWN if (run.path / name).is_file()]
    return {
        **_row(run),
        "folder": run.path.name,
        "problems": problems,
        "findings": [
            {
                "title": finding.title,
                "evidence": finding.evidence,
                "suggestion": finding.suggestion,
                "set": [f"--set {change.key}={change.value}" for change in finding.changes],
            }
            for finding in findings
        ],
        "config": [[key, value, str(origins.get(key, ""))] for key, value in _flat(config)],
        "pictures": sorted(f"plots/{path.name}" for path in run.plots.glob("*.png")),
        "files": files,
    }


def file_of(run: RunDir, name: str) -> Path | None:
    """A file of a run that may be given out."""
    is_picture = name.startswith("plots/") and "/" not in name[6:] and name.endswith(".png")
    path = run.path / name
    return path if (name in SHOWN or is_picture) and path.is_file() and not path.is_symlink() else None


class Tail:
    """The records of a run's log, from where the last read ended."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0
        self._num_bad = 0
        self.problem = ""
        """What could not be read."""

    def read(self) -> tuple[bool, list[dict[str, Any]]]:
        """Whether the log has begun anew, and the records of whole lines since then."""
        try:
            size = self._path.stat().st_size
            anew = size < self._offset  # a resumed run cuts off what came after its checkpoint
            if anew:
                self._offset = self._num_bad = 0
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return False, []
        except OSError as error:
            self.problem = f"cannot read {self._path}: {error.strerror}"
            return False, []
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        found = [_record(line) for line in whole.split(b"\n")[:-1]]
        self._num_bad += found.count(None)
        self.problem = f"{self._path}: {counted(self._num_bad, 'line')} cannot be read" if self._num_bad else ""
        return anew, [record for record in found if record is not None]


def thinned(records: list[dict[str, Any]], most: int = 2000) -> list[dict[str, Any]]:
    """All epochs, and of the steps no more than that, evenly."""
    steps = [record for record in records if record.get("type") == "step"]
    stride = math.ceil(len(steps) / most) if steps else 1
    kept = {id(record) for record in steps[::stride]}
    return [record for record in records if record.get("type") == "epoch" or id(record) in kept]


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    return {
        key: value
        for key, value in record.items()
        if isinstance(value, int | str) or (isinstance(value, float) and math.isfinite(value))
    }


def _row(run: RunDir) -> dict[str, Any]:
    row = summarize(run).as_json()
    return {key: value for key, value in row.items() if key != "run"}


def _stamp(run: RunDir) -> tuple[float, ...]:
    times = []
    for path in (run.info, run.metrics):
        try:
            times.append(path.stat().st_mtime)
        except OSError:
            times.append(0.0)
    return tuple(times)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", json.dumps(value, ensure_ascii=False)
