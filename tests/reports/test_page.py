"""The page as a file: whole, without requests, readable without eyes or colors; then in a real browser."""

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
import pytest
from jinja2 import UndefinedError

from trainkit.config import load_config
from trainkit.findings.evidence import Change, Finding
from trainkit.recorders.history import history_of
from trainkit.reports.page_data import PageData
from trainkit.reports.page_run import config_section, environment_section
from trainkit.reports.page_scores import picture
from trainkit.reports.run_page import build_run_page, render
from trainkit.system.frontend import Frontend
from trainkit.system.run_folder import RunDir
from trainkit.workflows.report import files_of, make_report
from trainkit.workflows.train.run import train

VOID = {"meta", "img"}


class Checker(HTMLParser):
    """Fails on tags that do not match, and keeps what there is."""

    def __init__(self):
        super().__init__()
        self.open, self.found = [], []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag


def check(page):
    checker = Checker()
    checker.feed(page)
    assert not checker.open
    return checker.found


@pytest.fixture(scope="module")
def page(tiny_run):
    return make_report(tiny_run.run.path).path.read_text()


def test_the_run_left_a_report_and_its_curves(tiny_run):
    assert tiny_run.report is not None
    assert tiny_run.report.path == tiny_run.run.path / "report.html"
    assert (tiny_run.run.plots / "learning_curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_real_page_is_well_formed_small_and_loads_nothing(page):
    found = check(page)
    assert len(page.encode()) < 2_000_000
    assert "default-src 'none'" in html.unescape(page)
    for name, attributes in found:
        assert name not in {"script", "link", "iframe", "object"}
        for key in ("src", "href", "action"):
            if name == "a" and not attributes["href"].startswith("#"):
                continue  # a link to a file of the run, which is followed only when it is clicked
            value = attributes.get(key, "#")
            assert value.startswith(("#", "data:image/png;base64,")), f"<{name} {key}={value[:60]}>"
    assert not re.search(r"https?://|url\((?!#)", page)


def test_a_real_page_can_be_read_without_eyes(page):
    found = check(page)
    tags = [name for name, _ in found]
    assert tags.count("h1") == 1
    assert {"main", "nav", "header", "footer"} <= set(tags)
    assert tags.count("table") == tags.count("caption")
    assert all(attributes.get("alt") for name, attributes in found if name == "img")
    assert all(attributes.get("aria-label") for name, attributes in found if name == "svg")
    assert all(attributes.get("scope") for name, attributes in found if name == "th")
    ids = [attributes["id"] for _, attributes in found if "id" in attributes]
    assert len(ids) == len(set(ids))
    hrefs = [attributes["href"] for name, attributes in found if name == "a"]
    links = [href[1:] for href in hrefs if href.startswith("#")]
    assert links
    assert set(links) <= set(ids)


def test_a_real_page_tells_what_was_run(page, tiny_run):
    for text in ("digits", "Confusion matrix", "optimizer.lr", "digits_mlp.yaml", "still learning", "best epoch"):
        assert text in page
    accuracy = tiny_run.metrics["test"]["accuracy"]
    assert f"{100 * accuracy:.2f} %" in page


def test_a_page_links_to_checkpoints_exports_and_evaluations(tiny_run, tmp_path):
    folder = tmp_path / tiny_run.run.path.name
    # Other tests export and evaluate the same run.
    shutil.copytree(tiny_run.run.path, folder, ignore=shutil.ignore_patterns("exports", "evals"))
    (folder / "exports" / "bundle #1").mkdir(parents=True)
    (folder / "exports" / "bundle #1" / "README.md").write_text("x" * 10)
    (folder / "exports" / "bundle #1" / "model.pt").write_bytes(b"y" * 20)
    (folder / "evals" / "test-x").mkdir(parents=True)
    (folder / "evals" / "test-x" / "eval.json").write_text("{}")
    run = RunDir(folder)
    files = files_of(run, run.read_info())
    assert [(one.kind, one.path) for one in files if one.kind in ("export", "evaluation")] == [
        ("export", "exports/bundle #1/README.md"),
        ("evaluation", "evals/test-x/eval.json"),
    ]
    assert next(one.num_bytes for one in files if one.kind == "export") == 30
    assert files[0].kind == "best checkpoint"
    assert {"metrics.jsonl", "config.resolved.yaml"} <= {one.path for one in files}
    page = build_run_page(PageData(str(folder), {}, "finished", history_of([]), [], files=files))
    hrefs = [attributes["href"] for name, attributes in check(page) if name == "a"]
    links = [href for href in hrefs if not href.startswith("#")]
    assert len(links) == len(files)
    assert all((folder / unquote(link)).exists() for link in links)


def test_a_page_says_that_some_parameters_have_another_learning_rate(tiny_run):
    info = tiny_run.run.read_info()
    history = history_of([json.loads(line) for line in tiny_run.run.metrics.read_text().splitlines()])
    note = "some parameters have it times 0.1 and 6."
    pages = [
        build_run_page(PageData("runs/x", {**info, "lr_scales": factors}, "finished", history, []))
        for factors in ([1.0], [0.1, 1.0, 6.0])
    ]
    assert [note in page for page in pages] == [False, True]


def test_names_from_data_and_files_cannot_become_markup():
    evil = "<script>alert(1)</script>"
    info = {"name": evil, "config": {"dataset": {"type": evil}}, "command": [evil], "origins": {"dataset.type": evil}}
    finding = Finding("x", evil, evil, evil, (Change("a.b", evil),))
    history = history_of([{"type": "epoch", "step": 1, "epoch": 1, "train_loss": 1.0, evil: 2.0}])
    page = build_run_page(PageData(evil, info, f"failed: {evil}", history, [finding]))
    assert "<script" not in page
    check(page)


def test_a_run_that_failed_at_once_has_a_page():
    page = build_run_page(PageData("runs/x", {}, "failed: the disk is full", history_of([]), []))
    assert "the disk is full" in page
    assert "No epoch was completed" in page
    check(page)


def test_a_report_without_its_data_or_checkpoint_goes_without_scores(tiny_run, tmp_path):
    folder = tmp_path / tiny_run.run.path.name
    shutil.copytree(tiny_run.run.path, folder)
    for path in (folder / "checkpoints").glob("*.pth"):
        path.write_bytes(path.read_bytes()[:1000])
    messages = []
    good = (folder / "report.html").read_text()
    made = make_report(folder, frontend=Frontend(say=messages.append))
    assert made.path.read_text() == good, "a page with scores is not replaced by one without"
    assert messages[1] == f"note: {made.path} stays as it is: it has scores, and a new one would have none"
    assert made.history.epochs
    made.path.unlink()
    messages.clear()
    for _ in range(2):  # the second time a page without scores is replaced
        text = make_report(folder, frontend=Frontend(say=messages.append)).path.read_text()
    assert "could not be scored" in text
    assert "Learning curves" in text
    assert "cannot be scored" in messages[0]
    assert not any("stays as it is" in message for message in messages)
    shutil.rmtree(folder / "checkpoints")
    made.path.write_text(good)
    assert make_report(folder).path.read_text() == good


def test_a_value_that_a_template_lacks_is_an_error():
    with pytest.raises(UndefinedError, match="verdict"):
        render("compare.html.j2", title="t", runs=[])


@pytest.fixture(scope="module")
def regression(tmp_path_factory):
    """A run of a regression that draws no plots."""
    config = tmp_path_factory.mktemp("configs") / "c.yaml"
    config.write_text(
        "dataset: {type: diabetes}\nmodel: {type: mlp, hidden_sizes: [8]}\ntraining: {epochs: 2}\n"
        "logging: {plots: false}\n"
    )
    return train(load_config(config), runs_dir=tmp_path_factory.mktemp("runs"))


def test_without_plots_the_page_shows_its_numbers_and_the_command_that_draws(regression):
    text = (regression.run.path / "report.html").read_text()
    found = check(text)
    assert "svg" not in [name for name, _ in found]
    assert f"trainkit report {regression.run.path}" in text
    assert "<details open><summary>All 2 epochs as a table" in text
    assert not (regression.run.plots / "learning_curves.png").exists()


def test_the_command_always_draws(regression):
    made = make_report(regression.run.path)
    found = check(made.path.read_text())
    labels = [attributes["aria-label"] for name, attributes in found if name == "svg"]
    assert [label.split(" (")[0].split(".")[0] for label in labels] == [
        "Loss",
        "R²",
        "Mean absolute error",
        "Learning rate",
        "Predicted against true: disease_progression",
    ]
    assert (regression.run.plots / "learning_curves.png").exists()


def test_a_picture_becomes_small_text_with_its_size():
    assert picture(np.zeros((3, 900, 400), np.uint8))["url"].startswith("data:image/png;base64,")
    tall = picture(np.zeros((1, 900, 400), np.uint8))
    assert len(tall["url"]) < 1000
    assert (tall["width"], tall["height"]) == (71, 160)


def test_pictures_tell_their_size_before_they_are_drawn(page):
    pictures = [(name, attributes) for name, attributes in check(page) if name in ("img", "svg")]
    assert {name for name, _ in pictures} == {"img", "svg"}
    for _, attributes in pictures:
        assert float(attributes["width"]) > 0
        assert float(attributes["height"]) > 0


def test_the_config_names_each_file_once_and_its_lines_in_a_column():
    info = {
        "config": {"seed": 3, "optimizer": {"type": "adam", "lr": 0.1}, "model": {"type": "mlp", "norm": None}},
        "origins": {
            "seed": "a:b.yaml:7",
            "optimizer.type": "base.yaml:2",
            "optimizer.lr": "--set optimizer.lr=0.1",
            "model.type": "a:b.yaml:9",
            "model.norm": "default",
        },
    }
    section = config_section(info)
    assert section["files"] == [
        ("a:b.yaml", [["seed", "3", "7"], ["model.type", "mlp", "9"]]),
        ("base.yaml", [["optimizer.type", "adam", "2"]]),
    ]
    assert section["overridden"] == [["optimizer.lr", "0.1"]]
    assert section["rest"] == [["model.norm", "null"]]
    page = build_run_page(PageData("runs/x", info, "finished", history_of([]), []))
    check(page)
    assert page.count("From a:b.yaml") == 2, "the caption and its name for screen readers"


def test_an_override_with_a_colon_and_a_number_is_no_file():
    info = {"config": {"device": "cuda:1"}, "origins": {"device": "--set device=cuda:1"}}
    assert config_section(info)["overridden"] == [["device", "cuda:1"]]
    assert config_section({}) is None


def test_the_environment_has_commit_cpu_and_memory_and_nothing_twice(tiny_run):
    info = tiny_run.run.read_info()
    rows = environment_section(info)
    terms = [term for term, _ in rows]
    assert len(terms) == len(set(terms))
    told = dict(rows)
    assert told["memory"].endswith("B")
    assert f", {info['num_cpus']} core" in told["CPU"]
    assert told["threads"].startswith(str(info["num_threads"]))
    git = {"commit": "abc", "changed_files": 2}
    asked = {"loss": {"value": "mse", "reason": "as asked for"}}
    command = ["/usr/lib/trainkit/__main__.py", "train", "my config.yaml"]
    told = dict(environment_section({"git": git, "choices": asked, "command": command}))
    assert told == {"command": "trainkit train 'my config.yaml'", "commit": "abc, 2 files changed"}
    assert environment_section({}) == []


# ---- in a browser ----

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--proxy-server=127.0.0.1:9",
    "--enable-logging=stderr",
    "--allow-file-access-from-files",
    "--virtual-time-budget=2000",
]


def browse(tmp_path, text):
    """(the document after loading, console lines, addresses that were asked for)."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    file, log = tmp_path / "page.html", tmp_path / "net.json"
    file.write_text(text)
    command = [CHROMIUM, *QUIET, f"--user-data-dir={tmp_path}/profile", f"--log-net-log={log}"]
    done = subprocess.run([*command, "--dump-dom", file.as_uri()], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    events = json.loads(log.read_text())["events"]
    # The browser asks for things of its own at every start; what a page asks for has that page as its initiator.
    params = [event.get("params", {}) for event in events]
    asked = {entry.get("url", "") for entry in params if entry.get("initiator", "not an origin") != "not an origin"}
    return done.stdout, console, sorted(url for url in asked if url.startswith(("http", "ws")))


def test_in_chromium_the_page_renders_without_errors_or_requests(tmp_path, page):
    document, console, asked = browse(tmp_path, page)
    assert "Learning curves" in document
    assert console == []
    assert asked == []


def test_the_browser_check_sees_requests_and_errors(tmp_path, page):
    loose = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    _, _, asked = browse(tmp_path, loose.replace("</main>", '<img src="http://example.org/x.png" alt="x"></main>'))
    assert asked == ["http://example.org/x.png"]
    _, console, _ = browse(tmp_path, page.replace("</main>", "<script>alert(1)</script></main>"))
    assert console, "the policy forbids scripts, and the console says so"


@pytest.mark.parametrize("width", [360, 1200])
def test_in_chromium_nothing_is_wider_than_the_screen(tmp_path, page, width):
    (tmp_path / "inner.html").write_text(page)
    outer = f"""<!doctype html><iframe id="f" src="inner.html" style="width:{width}px;height:800px;border:0"></iframe>
    <p id="out"></p><script>document.getElementById("f").onload = e => {{
    const d = e.target.contentDocument.documentElement; document.getElementById("out").textContent =
    "wide " + d.scrollWidth + " of " + d.clientWidth; }}</script>"""
    document, _, _ = browse(tmp_path, outer)
    measured = re.search(r"wide (\d+) of (\d+)", document)
    assert measured is not None, document[-500:]
    assert int(measured[1]) <= int(measured[2])


def test_in_chromium_a_table_says_that_it_is_cut_where_it_is(tmp_path, page):
    (tmp_path / "inner.html").write_text(page)
    outer = """<!doctype html><iframe id="f" src="inner.html" style="width:390px;height:800px;border:0"></iframe>
    <p id="out"></p><script>document.getElementById("f").onload = e => {
    const page = e.target.contentDocument;
    page.querySelectorAll("details").forEach(part => part.open = true);
    setTimeout(() => { document.getElementById("out").textContent = "boxes " + JSON.stringify(
        [...page.querySelectorAll(".scroll")].map(
            box => [box.scrollWidth > box.clientWidth, box.querySelector(".cut").offsetHeight > 0]));
    }, 200); }</script>"""
    document, _, _ = browse(tmp_path, outer)
    measured = re.search(r"boxes (\[.*?\]\])", document)
    assert measured is not None, document[-500:]
    boxes = json.loads(measured[1])
    assert {cut for cut, _ in boxes} == {True, False}
    assert all(cut == says for cut, says in boxes), boxes
