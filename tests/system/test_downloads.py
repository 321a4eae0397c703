"""Downloads from a server on this machine: a file is whole and right, or absent."""

import os
import signal
import subprocess
import sys
import threading

import pytest
from file_server import Served, serving

from trainkit.errors import Interrupted
from trainkit.system import DownloadFailed, Frontend, StopRequest, download

DATA = os.urandom(300_000)


def right(digest: str) -> None:
    return None


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_file_its_folders_and_the_progress(tmp_path):
    said, counted = [], []
    frontend = Frontend(say=said.append, progress=lambda done, total: counted.append((done, total)))
    with serving({"w.pth": Served(DATA)}) as server:
        download(server.url("w.pth"), tmp_path / "hub" / "w.pth", check=right, frontend=frontend)
    assert (tmp_path / "hub" / "w.pth").read_bytes() == DATA
    assert names(tmp_path / "hub") == ["w.pth"]
    assert counted[-1] == (300_000, 300_000)
    assert said == [f"downloading w.pth (300 kB) from {server.address}/w.pth to {tmp_path / 'hub'}"]


def test_a_server_that_does_not_say_the_size(tmp_path):
    with serving({"w": Served(DATA, length=-1)}) as server:
        download(server.url("w"), tmp_path / "w", check=right, frontend=Frontend())
    assert (tmp_path / "w").read_bytes() == DATA


@pytest.mark.parametrize(
    ("served", "reason"),
    [
        (Served(DATA, stop_after=100_000), "the connection ended after 100,000 of 300,000 bytes"),
        (Served(DATA, length=300_001), "the connection ended after 300,000 of 300,001 bytes"),
        (Served(DATA, status=503), "the server answers 503 Service Unavailable"),
        (None, "the server answers 404 Not Found"),
    ],
)
def test_what_does_not_come_whole_is_not_kept(tmp_path, served, reason):
    with serving({} if served is None else {"w": served}) as server, pytest.raises(DownloadFailed, match=reason):
        download(server.url("w"), tmp_path / "w", check=right, frontend=Frontend())
    assert names(tmp_path) == []


def test_what_is_another_file_is_not_kept(tmp_path):
    with (
        serving({"w": Served(DATA)}) as server,
        pytest.raises(DownloadFailed, match="what came is another file: its hash is wrong"),
    ):
        download(server.url("w"), tmp_path / "w", check=lambda digest: "its hash is wrong", frontend=Frontend())
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:9/w", "Connection refused"),
        ("http://nowhere.invalid/w", "."),
        ("no address", "unknown url type"),
        ("http://[/w", "."),
    ],
)
def test_no_server(tmp_path, url, reason):
    with pytest.raises(DownloadFailed, match=reason):
        download(url, tmp_path / "new" / "w", check=right, frontend=Frontend())
    assert names(tmp_path) == []


def test_a_stop_leaves_nothing(tmp_path):
    stop = StopRequest()

    def progress(done: int, total: int) -> None:
        stop.signum = signal.SIGINT

    with serving({"w": Served(DATA)}) as server, pytest.raises(Interrupted, match="w was being downloaded"):
        download(server.url("w"), tmp_path / "w", check=right, frontend=Frontend(progress=progress, stop=stop))
    assert names(tmp_path) == []


CHILD = """
import sys
from pathlib import Path
from trainkit.system import Frontend, download
download(sys.argv[1], Path(sys.argv[2]), check=lambda digest: None, frontend=Frontend())
"""


def start_child(url: str, path) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", CHILD, url, str(path)], stderr=subprocess.PIPE)


def test_a_killed_download_leaves_nothing_that_is_trusted_and_the_next_one_clears_up(tmp_path):
    with serving({"w": Served(DATA, seconds=0.2)}) as server:
        child = start_child(server.url("w"), tmp_path / "w")
        assert server.started.wait(60)
        while not names(tmp_path):
            assert child.poll() is None
        child.kill()
        child.wait()
        child.stderr.close()
        left = names(tmp_path)
        assert "w" not in left
        assert len(left) == 1
        server.files["w"].seconds = 0
        download(server.url("w"), tmp_path / "w", check=right, frontend=Frontend())
    assert names(tmp_path) == ["w"]
    assert (tmp_path / "w").read_bytes() == DATA


def test_several_processes_at_once(tmp_path):
    with serving({"w": Served(DATA, seconds=0.02)}) as server:
        children = [start_child(server.url("w"), tmp_path / "w") for _ in range(3)]
        mine = threading.Thread(
            target=download, args=(server.url("w"), tmp_path / "w"), kwargs={"check": right, "frontend": Frontend()}
        )
        mine.start()
        ends = [child.communicate(timeout=60)[1].decode() for child in children]
        mine.join()
    assert [child.returncode for child in children] == [0, 0, 0], ends
    assert names(tmp_path) == ["w"]
    assert (tmp_path / "w").read_bytes() == DATA
