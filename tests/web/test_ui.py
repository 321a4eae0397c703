"""``trainkit ui`` as a process, and its pages in a browser."""

import contextlib
import json
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import chromium, errors, requested
from written_runs import make_run

pytest.importorskip("starlette", reason="the extra web is not installed")


@contextlib.contextmanager
def served(folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    arguments = [sys.executable, "-X", "importtime", "-m", "trainkit", "ui", str(folder), "--port", "0"]
    child = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=(folder.parent / "imports").open("w"), text=True)
    try:
        assert child.stdout is not None
        yield re.match(r"(http://127.0.0.1:\d+) ", child.stdout.readline())[1], child
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(20)


def fetch(url: str, **headers: str) -> tuple[int, str]:
    try:
        # ``urlopen`` keeps the proxies of its first call in this process, which a test of another file may have set.
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(urllib.request.Request(url, headers=headers)) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def wait_for(condition, seconds: float = 40.0):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.2)
    return found


def test_a_thousand_runs_without_torch_for_this_machine_alone(tmp_path):
    folder = tmp_path / "work"
    for number in range(1000):
        make_run(folder / "runs" / f"20260101-{number:06}_a")
    (folder / "runs" / "20260101-000007_a" / "run.json").write_text('{"metrics": null, "config": []}')
    with served(folder) as (url, child):
        status, text = fetch(f"{url}/api/runs")
        assert (status, len(json.loads(text)["runs"])) == (200, 1000)
        status, text = fetch(f"{url}/api/run/runs/20260101-000007_a")
        assert status == 200
        assert "'config' is not an object" in json.loads(text)["status"]
        assert fetch(f"{url}/api/runs", Host="elsewhere.example")[0] == 400
        for path in ("/api/run/..", "/file/runs/../../imports/-/run.json", "/static/ui.py", "/nothing"):
            assert fetch(url + path)[0] == 404, path
        child.send_signal(signal.SIGTERM)
        assert child.wait(20) in (0, 143, -signal.SIGTERM)
    assert not re.search(r"\| *(torch|numpy|matplotlib)$", (tmp_path / "imports").read_text(), re.MULTILINE)


@pytest.mark.slow
def test_the_curve_of_a_run_moves_and_runs_are_overlaid(tmp_path):
    folder = tmp_path / "work"
    first = make_run(folder / "runs" / "20260101-000000_a")
    second = make_run(folder / "runs" / "20260102-000000_b", status="running")
    damaged = make_run(folder / "runs" / "20260101-000001_a")
    damaged.info.write_text("{")
    with served(folder) as (url, _), chromium(width=390, dark=True) as driver:
        driver.get(url)
        table = "return [...document.querySelectorAll('tr[data-id]')].map((row) => row.innerText)"
        rows = wait_for(lambda: driver.execute_script(table))
        assert second.path.name in rows[0], "the newest is the first"
        assert "run.json: Expecting property name" in rows[1]
        driver.execute_script("document.querySelectorAll('tr[data-id] a')[1].focus()")
        with second.metrics.open("a") as file:
            file.write(json.dumps({"type": "epoch", "step": 35, "epoch": 33}) + "\n")
        wait_for(lambda: "33" in driver.execute_script(table)[0])
        held = "return document.activeElement.innerText"
        assert driver.execute_script(held) == damaged.path.name, "a change takes the focus from no row"
        driver.get(f"{url}/#/run/runs/{second.path.name}")
        path = wait_for(lambda: driver.find_elements("css selector", ".chart path.line"))[0]
        before = path.get_attribute("d")
        with second.metrics.open("a") as file:
            file.write(json.dumps({"type": "epoch", "step": 40, "epoch": 4, "val_accuracy": 0.9}) + "\n")
        line = "return document.querySelector('.chart path.line').getAttribute('d')"
        wait_for(lambda: driver.execute_script(line) != before)
        cards = "return document.querySelector('.cards').innerText"
        wait_for(lambda: re.search(r"epochs\s+4", driver.execute_script(cards)))
        # A browser opens six streams to one server, and no more.
        more = [make_run(folder / "runs" / f"20260103-00000{number}_c").path.name for number in range(6)]
        ids = ",".join(f"runs%2F{name}" for name in (first.path.name, second.path.name, *more))
        driver.get(f"{url}/#/compare/{ids}")
        legend = "return document.querySelector('.charts').innerText"
        wait_for(lambda: "H val" in driver.execute_script(legend))
        look = "(e) => e.attributes.stroke.value + getComputedStyle(e).strokeDasharray"
        looks = f"return [...document.querySelectorAll('%s path.line')].map({look})"
        for lines in (".chart > svg", ".legend"):
            assert len(set(driver.execute_script(looks % lines))) == 8, "one of each run"
        failed = make_run(folder / "runs" / "20260104-000000_d", status="failed: step 2: the loss is nan")
        driver.get(f"{url}/#/run/runs/{failed.path.name}")
        body = "return document.body.innerText"
        wait_for(lambda: "failed: step 2: the loss is nan" in driver.execute_script(body))
        assert errors(driver) == []
        assert {address.split("/")[2] for address in requested(driver) if address.startswith("http")} == {url[7:]}


@pytest.mark.slow
def test_the_folder_of_a_run_opens_its_page(tmp_path):
    run = make_run(tmp_path / "runs" / "20260101-000000_a b")
    command = [sys.executable, "-m", "trainkit", "ui", str(run.path), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            url, page = child.stdout.readline().split()[0].split("/#/")
            assert (page, fetch(f"{url}/api/{page}")[0]) == ("run/20260101-000000_a%20b", 200)
        finally:
            child.terminate()


def test_wrong_input_is_one_line(tmp_path):
    for arguments, says in (
        ([str(tmp_path / "none")], "there is no such folder"),
        ([__file__], "is no folder"),
        (["--port", "99999"], "--port"),
    ):
        command = [sys.executable, "-m", "trainkit", "ui", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert done.returncode == 2
        assert says in done.stderr
        assert "Traceback" not in done.stderr
