"""``report.html``: all about a run in one file that needs nothing from outside, not even a script."""

from __future__ import annotations

from pathlib import Path

from trainkit.reports import page_evaluation, page_setup, page_training
from trainkit.reports.markup import Content, Markup, join, tag
from trainkit.reports.page_data import PageData

STYLE_FILE = Path(__file__).with_name("page.css")


def build_page(data: PageData) -> str:
    """The whole file as text."""
    name = str(data.info.get("name") or data.folder)
    regression = data.info.get("task") == "regression"
    main: list[tuple[str, str, Markup]] = [
        ("findings", "Findings", page_training.findings(data)),
        ("curves", "Learning curves", page_training.curves(data)),
        ("scores", "Scores", page_evaluation.scores(data)),
        ("classes", "Predictions" if regression else "Classes", page_evaluation.classes(data)),
        ("mistakes", "Largest errors" if regression else "Mistakes", page_evaluation.mistakes(data)),
        ("time", "Time", page_training.time_spent(data)),
        ("network", "Network", page_setup.network(data)),
        ("config", "Config", page_setup.config(data)),
        ("environment", "Environment", page_setup.environment(data)),
    ]
    shown = [entry for entry in main if entry[2]]
    links = [tag("li", tag("a", title, href=f"#{id}")) for id, title, _ in shown]
    body = join(
        tag("a", "Skip to the findings", href="#findings", class_="skip"),
        tag("header", page_setup.summary(data, name)),
        tag("nav", tag("ul", links), aria_label="Sections"),
        tag("main", [content for _, _, content in shown]),
        tag("footer", tag("p", f"Made by trainkit from {data.folder}. To make it again: ", _code(data.folder))),
    )
    return document(f"{name}: run report", body)


def document(title: str, body: Content) -> str:
    """An HTML document with the style of all of trainkit's pages, closed to the network."""
    # The policy makes sure of it: nothing is loaded, and no script runs, whatever a class or a file is called.
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Markup(STYLE_FILE.read_text())),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', body), lang='en')}\n"


def _code(folder: str) -> Markup:
    return tag("code", f"trainkit report {folder}")
