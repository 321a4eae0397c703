"""``trainkit ckpt verify|list``: the words, the exit codes, and no torch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoint_checks import save
from file_layers import Failing, Killed, installed
from typer.testing import CliRunner

from trainkit.checkpoints.folder import CheckpointFolder
from trainkit.cli.ckpt import app
from trainkit.errors import UserError


@pytest.fixture
def run(tmp_path) -> Path:
    folder = CheckpointFolder(tmp_path / "run" / "checkpoints")
    for step in (1, 2, 3):
        save(folder, step, best=step == 1)
    return tmp_path / "run"


def invoke(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.stdout


def words(output: str) -> dict[str, str]:
    lines = [line.split(maxsplit=1) for line in output.splitlines()]
    return {Path(rest.split(": ")[0]).name: word for word, rest in lines}


def test_a_good_run(run):
    expected = {"net_step1.pth": "OK", "net_step2.pth": "OK", "net_step3.pth": "OK"}
    assert words(invoke("verify", run)) == expected
    assert words(invoke("verify", run / "checkpoints")) == expected
    assert words(invoke("verify", run / "checkpoints" / "best")) == {"net_step1.pth": "OK"}


def test_bad_files(run):
    folder = run / "checkpoints"
    data = bytearray((folder / "net_step2.pth").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "net_step2.pth").write_bytes(data)
    (folder / "net_step1.pth").unlink()
    (folder / "mine.pth").write_text("mine")
    output = invoke("verify", run, code=1)
    assert words(output) == {
        "net_step1.pth": "BAD",
        "net_step2.pth": "BAD",
        "net_step3.pth": "OK",
        "mine.pth": "BAD",
        "best": "BAD",
    }
    assert "net_step1.pth: in checkpoints.json, but no such file" in output
    assert "mine.pth: not a trainkit checkpoint" in output
    verdicts = json.loads(invoke("verify", run, "--json", code=1))
    assert [verdict["step"] for verdict in verdicts if verdict["word"] == "OK"] == [3]
    assert "no such file" in invoke("verify", run / "nothing.pth", code=1)


def test_what_a_crash_left_is_uncommitted(run):
    folder = CheckpointFolder(run / "checkpoints")
    folder.recover()
    with installed(Failing("fsync", 0, kill=True)), pytest.raises(Killed):
        save(folder, 4)  # before the file has its name
    with installed(Failing("open", 1, kill=True)), pytest.raises(Killed):
        save(folder, 5)  # before the journal names it
    found = words(invoke("verify", run))
    assert found["net_step5.pth"] == "UNCOMMITTED"
    (temporary,) = [name for name in found if name.startswith(".net_step4.pth")]
    assert found[temporary] == "UNCOMMITTED"
    notes = CheckpointFolder(run / "checkpoints").recover()
    assert notes == ["net_step5.pth was saved but not yet in checkpoints.json: added"]
    assert words(invoke("verify", run))["net_step5.pth"] == "OK"


def test_a_damaged_journal(run):
    (run / "checkpoints" / "checkpoints.json").write_text("{")
    output = invoke("verify", run, code=1)
    assert words(output)["checkpoints.json"] == "BAD"
    assert "the next start of the run rebuilds it" in output
    assert [entry["step"] for entry in json.loads(invoke("list", run, "--json"))] == [1, 2, 3]


def test_list(run):
    listed = json.loads(invoke("list", run, "--json"))
    assert [(entry["step"], entry["pointers"]) for entry in listed] == [(1, ["best"]), (2, []), (3, ["last"])]
    assert "net_step2.pth" in invoke("list", run / "checkpoints").replace("\n", "").replace(" ", "")


def test_an_empty_folder(tmp_path):
    for command in ("verify", "list"):
        result = CliRunner().invoke(app, [command, str(tmp_path)])
        assert isinstance(result.exception, UserError)
        assert "no checkpoints here" in str(result.exception)


def test_no_torch_is_needed(run):
    code = f"import sys; from trainkit.cli.ckpt import app; app(['verify', {str(run)!r}], standalone_mode=False); "
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
