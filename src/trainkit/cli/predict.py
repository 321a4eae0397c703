"""``trainkit predict [MODEL] INPUTS...``."""

from __future__ import annotations

import csv
import io
import json as json_module
import mimetypes
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trainkit.cli import console
from trainkit.cli.options import (
    Json,
    Launcher,
    Nproc,
    Precision,
    Quiet,
    RunsDir,
    Tta,
    run_in_ranks,
    start_of_ranks,
)
from trainkit.errors import TrainkitError, UserError
from trainkit.system import launched
from trainkit.wording import percent

if TYPE_CHECKING:
    from trainkit.workflows.predict import Prediction, Predictor

    Show = Callable[[Prediction], None]

MAX_TABLE_ROWS = 200
"""On a terminal, more predictions than this come as plain lines: a table has to be known as a whole."""
SUFFIXES = (".csv", ".jsonl")
ROWS_AT_A_TIME = 1000


def predict(
    given: Annotated[
        list[str],
        typer.Argument(
            metavar="[MODEL] INPUTS...",
            help="A checkpoint, a run or a bundle; the newest run if left out. "
            "Then images, folders, globs, CSV files (one row a sample), .npy.",
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the predictions to this .csv or .jsonl file.")
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="How many classes to name, the most probable first.")] = 3,
    device: Annotated[str, typer.Option(help="Where to compute: auto, cpu, cuda, ...")] = "auto",
    precision: Precision = None,
    tta: Tta = "none",
    resize: Annotated[
        bool,
        typer.Option("--resize", help="Resize images of another size than the model takes; they may be stretched."),
    ] = False,
    runs_dir: RunsDir = Path("runs"),
    nproc: Nproc = None,
    launcher: Launcher = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say what a model makes of images, table rows or arrays."""
    if output is not None and output.suffix.lower() not in SUFFIXES:
        raise UserError(f"--output {output}: the name has to end in .csv or .jsonl")
    if output is not None and not output.absolute().parent.is_dir():
        raise UserError(f"--output {output}: there is no folder {output.parent}; make it first")

    from trainkit.workflows.predict import PATIENCE, check_prediction, open_model
    from trainkit.workflows.predict import predict as run_prediction
    from trainkit.workflows.ranks import joined_by

    size = start_of_ranks(nproc, launcher)
    quiet = quiet or launched.rank() > 0
    model, inputs = split_arguments(given)
    how: Any = {"device": device, "precision": precision, "runs_dir": runs_dir}
    if size > launched.num_ranks():
        with console.frontend(quiet=quiet) as frontend:
            check_prediction(model, inputs, **how, tta=tta, resize=resize, size=size)
            frontend.check("nothing was done")
        run_in_ranks(size, unsaved="the predictions are not complete" if output is None else "nothing was written")
    done = failed = 0
    with (
        console.frontend("predicting", quiet=quiet) as frontend,
        joined_by("gloo", timeout=60, patience=PATIENCE, stop=frontend.stop) as ranks,
    ):
        opened = open_model(model, **how, ranks=ranks, frontend=frontend)
        predictions = run_prediction(
            opened, inputs, top_k=top_k, tta=tta, resize=resize, ranks=ranks, frontend=frontend
        )
        if not ranks.is_first:
            deque(predictions, maxlen=0)
            return
        with write_predictions(output, columns=_columns(opened, top_k), json=json, tta=tta) as show:
            for prediction in predictions:
                done += 1
                if prediction.error is not None:
                    failed += 1
                    console.say(f"error: {prediction.source}: {prediction.error}")
                show(prediction)
            if failed and output is None:
                raise unusable(failed, done)
    if output is not None and not json and not quiet:
        console.lines([("predictions", f"{done - failed:,}"), ("written to", str(output))])
    if failed:
        raise unusable(failed, done)


def unusable(failed: int, done: int) -> TrainkitError:
    return TrainkitError(f"{failed:,} of {done:,} inputs could not be used")


def split_arguments(given: Sequence[str]) -> tuple[Path | None, Sequence[str]]:
    """The model and the inputs; no model where the first argument is the only one, or has the ending of an input.

    Raises:
        UserError: there is a model and no input.
    """
    first = Path(given[0])
    is_image = (mimetypes.guess_type(first.name)[0] or "").startswith("image/")
    if is_image or first.suffix.lower() in (".csv", ".npy"):
        return None, given
    if len(given) > 1:
        return first, given[1:]
    folders_of_models = (first / name for name in ("run.json", "checkpoints", "signature.json"))
    if first.suffix in (".pth", ".pt", ".pt2", ".onnx") or any(path.exists() for path in folders_of_models):
        raise UserError(f"{first}: a model, and nothing to predict; give images, folders, CSV files or arrays after it")
    return None, given


@contextmanager
def write_predictions(output: Path | None, *, columns: Sequence[str], json: bool, tta: str = "none") -> Iterator[Show]:
    """What to do with each prediction: to a file, as JSON, as a table or as lines on stdout."""
    if output is not None:
        with _into_file(output, columns) as show:
            yield show
        if json:
            print(console.json_text({"output": str(output), **about(tta)}))
    elif json:
        with _as_json(about(tta)) as show:
            yield show
    elif sys.stdout.isatty():
        with _as_table(columns) as show:
            yield show
    else:
        yield _as_lines(columns)


def about(tta: str) -> dict[str, str]:
    """What a JSON document says of all predictions."""
    return {} if tta == "none" else {"tta": tta}


@contextmanager
def _into_file(output: Path, columns: Sequence[str]) -> Iterator[Show]:
    """Whole or absent: the file takes its name when the last prediction is in it."""
    from trainkit.system import durable

    waiting: list[Prediction] = []
    as_csv = output.suffix.lower() == ".csv"
    with durable.open_for_replace(output) as draft:
        if as_csv:
            draft.write(durable.utf8(_csv_text([columns])))

        def flush() -> None:
            rows = (_cells(prediction, len(columns)) for prediction in waiting)
            draft.write(durable.utf8(_csv_text(rows) if as_csv else _json_lines(waiting)))
            waiting.clear()

        def show(prediction: Prediction) -> None:
            waiting.append(prediction)
            if len(waiting) >= ROWS_AT_A_TIME:
                flush()

        yield show
        flush()


def _columns(model: Predictor, top_k: int) -> Sequence[str]:
    """The columns of a CSV file."""
    if not model.class_names:
        return ("source", *model.target_names, "error")
    further = range(2, min(top_k, len(model.class_names)) + 1)
    pairs = [("label", "probability"), *((f"label_{k}", f"probability_{k}") for k in further)]
    return ("source", *(name for pair in pairs for name in pair), "error")


def _cells(prediction: Prediction, width: int) -> list[object]:
    if prediction.error is not None:
        return [prediction.source, *[""] * (width - 2), prediction.error]
    answers = chain.from_iterable(prediction.top) if prediction.top else prediction.values.values()
    return [prediction.source, *answers, ""]


def _csv_text(rows: Iterable[Sequence[object]], *, delimiter: str = ",") -> str:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def _json_lines(predictions: Sequence[Prediction]) -> str:
    from trainkit.system import durable

    plain = (durable.finite_or_none(prediction.as_json()) for prediction in predictions)
    return "".join(json_module.dumps(one, ensure_ascii=False, allow_nan=False) + "\n" for one in plain)


@contextmanager
def _as_json(head: Mapping[str, str]) -> Iterator[Show]:
    """One JSON document, written as the predictions come."""
    count = 0
    beginning = "{" + "".join(f'"{name}": "{value}", ' for name, value in head.items()) + '"predictions": ['

    def show(prediction: Prediction) -> None:
        nonlocal count
        start = ",\n  " if count else f"{beginning}\n  "
        print(start, console.json_text(prediction.as_json()), sep="", end="")
        count += 1

    failure = ""
    try:
        yield show
    except TrainkitError as error:
        if not count:  # the error is the whole document
            raise
        failure = ', "error": ' + console.json_text(console.error_as_json(error, str(error), error.exit_code))
        raise
    finally:
        if count or sys.exc_info()[0] is None:
            print(f"\n]{failure}}}" if count else f"{beginning}]}}")


@contextmanager
def _as_table(columns: Sequence[str]) -> Iterator[Show]:
    waiting: list[Prediction] | None = []
    print_line: Show

    def show(prediction: Prediction) -> None:
        nonlocal waiting, print_line
        if waiting is None:
            print_line(prediction)
            return
        waiting.append(prediction)
        if len(waiting) > MAX_TABLE_ROWS:
            print_line = _as_lines(columns)
            for earlier in waiting:
                print_line(earlier)
            waiting = None

    yield show
    answers = [prediction for prediction in waiting or [] if prediction.error is None]
    if answers:
        _print_table(answers)


def _print_table(answers: Sequence[Prediction]) -> None:
    if answers[0].label is None:
        console.table(None, ["source", *answers[0].values], [[row.source, *row.values.values()] for row in answers])
        return
    rows = [
        [
            row.source,
            row.label,
            percent(row.probability, decimals=2),
            ", ".join(f"{name} {percent(p, decimals=2)}" for name, p in row.top[1:]),
        ]
        for row in answers
    ]
    console.table(None, ["source", "label", "probability", "then"], rows)


def _as_lines(columns: Sequence[str]) -> Show:
    """The columns of a CSV file between tabs, below a header; broken inputs are on stderr alone."""

    def write(cells: Sequence[object]) -> None:
        shown = [f"{cell:.6f}" if isinstance(cell, float) and "probability" in columns else cell for cell in cells]
        print(_csv_text([shown[:-1]], delimiter="\t"), end="")

    write(columns)

    def show(prediction: Prediction) -> None:
        if prediction.error is None:
            write(_cells(prediction, len(columns)))

    return show
