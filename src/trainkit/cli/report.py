"""``trainkit report [RUN]``."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainkit.cli import console
from trainkit.cli.options import DataRoot, Json, Quiet, RunsDir

if TYPE_CHECKING:
    from trainkit.findings import Finding


def report(
    run: Annotated[
        Path | None, typer.Argument(help="A run's folder, or a part of its name; the newest run if left out.")
    ] = None,
    data_root: DataRoot = None,
    runs_dir: RunsDir = Path("runs"),
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write the report page of a run again, with its best checkpoint scored anew."""
    from trainkit.workflows.report import make_report

    with console.frontend(quiet=quiet) as frontend:
        made = make_report(run, data_root=data_root, runs_dir=runs_dir, frontend=frontend)
    if json:
        console.print_json({"report": str(made.path), "findings": [as_json(finding) for finding in made.findings]})
        return
    show_findings(made.findings)
    console.lines([("report", str(made.path))])


def as_json(finding: Finding) -> dict[str, object]:
    """A finding as plain values."""
    return {**asdict(finding), "changes": {change.key: change.value for change in finding.changes}}


def show_findings(findings: Sequence[Finding]) -> None:
    """Print each finding with its evidence and the changes to try."""
    for finding in findings:
        print(f"  finding: {finding.title}")
        for text in (finding.evidence, finding.suggestion):
            print(textwrap.fill(text, 100, initial_indent="    ", subsequent_indent="    "))
        tries = " ".join(change.override for change in finding.changes if "..." not in change.value)
        if tries:
            print(f"    try: {tries}")
        print()
