"""Hostile requests among others, and signals under load: nothing breaks, nothing stays, nothing is lost."""

import http.client
import json
import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from hostile_clients import CLIENTS, HOSTILE, KINDS, attack, picture, settled
from served import Server
from small_bundles import image_bundle


@pytest.mark.slow
def test_hostile_requests_break_nothing_and_leave_nothing(tmp_path):
    with Server(image_bundle(tmp_path / "bundle"), "--timeout", "5") as server:
        attack(server, KINDS * round(1 / HOSTILE))
        before = server.memory()
        counts = attack(server, 1000)
        assert settled(server)
        assert server.memory() < before + 20e6
        statuses = {status for _, status in counts}
        assert {status for status in statuses if status >= 500} <= {503, 504}
        assert {kind for kind, status in counts if kind == "plain" and status != 200} == set()
        assert counts["plain", 200] == 950
        assert {400, 408, 413, 422} <= statuses
        assert server.stop() == 0
        assert not [line for line in server.said if "Traceback" in line or "error" in line.lower()]


def ask_until_refused(server: Server, outcomes: Counter[object], lock: threading.Lock) -> None:
    """Requests on one connection after the other, with and without keeping them, until the server stops."""
    data, connection = picture(1, "PNG"), None
    while True:
        if connection is None:
            connection = http.client.HTTPConnection(server.host, server.port, timeout=60)
            try:
                connection.connect()
            except OSError:
                return
        try:
            connection.request("POST", "/predict", data)
            answer = connection.getresponse()
            json.loads(answer.read())
            outcome: object = answer.status
        except (OSError, http.client.HTTPException) as error:
            outcome = type(error).__name__
        with lock:
            outcomes[outcome] += 1
            keep = outcomes.total() % 3
        if outcome != 200:
            return
        if not keep:
            connection.close()
            connection = None


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_signal_under_load_loses_no_request(tmp_path, workers):
    server = Server(image_bundle(tmp_path / "bundle"), "--workers", workers)
    outcomes: Counter[object] = Counter()
    lock = threading.Lock()
    clients = [threading.Thread(target=ask_until_refused, args=(server, outcomes, lock)) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    while outcomes.total() < 1000:
        time.sleep(0.05)
    assert server.stop() == 0
    for client in clients:
        client.join(timeout=60)
    assert set(outcomes) <= {200, 503}
    assert outcomes[200] >= 1000


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced(tmp_path):
    server = Server(image_bundle(tmp_path / "bundle"), "--workers", "2")
    try:
        time.sleep(6)  # one that dies sooner is taken for one that cannot start
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
        assert len(children) == 2
        os.kill(int(children[0]), signal.SIGKILL)
        while not any("another one is started" in line for line in server.said):
            time.sleep(0.05)
        assert {server.predict(picture(1, "PNG"))[0] for _ in range(20)} == {200}
    finally:
        assert server.stop() == 0
