"""``trainkit config`` as a user runs it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import trainkit
from trainkit.config import load_config
from trainkit.config.help.shipped import folder, list_shipped, list_sweeps
from trainkit.config.text.reader import read_file

PACKAGE = Path(trainkit.__file__).parent


def run(*arguments: str, cwd: Path, source: Path = PACKAGE.parent) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "trainkit", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("text", "arguments", "first_line"),
    [
        (
            "dataset: digits\nmodel: mlp\noptimizer: {type: sgd, lr: fast}\n",
            (),
            "error: bad.yaml:3:28: optimizer.lr: expected a number above 0, got 'fast'; the default is 0.001",
        ),
        (
            "dataset: digits\nmodel: mlp\n",
            ("--set", "optimizer.lr=fast"),
            "error: --set optimizer.lr=fast: optimizer.lr: expected a number above 0, got 'fast'; the default is 0.001",
        ),
        (
            "dataset: digits\nmodel: mlp\nname: !!python/object/apply:os.system ['touch pwned']\n",
            (),
            "error: bad.yaml:3:7: name: tags are not allowed, got !!python/object/apply:os.system; "
            "a config holds plain values only, remove the tag",
        ),
        ("", (), "error: bad.yaml: the file is empty; `trainkit init` writes a config to start from"),
    ],
)
def test_a_wrong_config_exits_2_with_messages_on_stderr(
    tmp_path: Path, text: str, arguments: tuple[str, ...], first_line: str
) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    done = run("config", "show", "bad.yaml", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines()[0] == first_line
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stderr
    assert os.listdir(tmp_path) == ["bad.yaml"]


@pytest.mark.parametrize("command", [("config", "show"), ("train",)])
def test_a_wrong_config_is_told_before_heavy_imports(tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "bad.yaml").write_text("dataset: digits\nmodel: mlp\nseed: x\n")
    program = (
        f"import sys; sys.argv = {['trainkit', *command, 'bad.yaml']!r}\n"
        "from trainkit.__main__ import main\n"
        "try:\n    main()\n"
        "except SystemExit as stop:\n"
        "    heavy = {'torch', 'numpy', 'rich.console', 'sklearn', 'torchvision', 'matplotlib'}\n"
        "    print(stop.code, sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "2 []\n", done.stderr


def test_show_prints_a_config_that_loads_again(tmp_path: Path) -> None:
    config = folder() / "digits_cnn.yaml"
    done = run("config", "show", str(config), "--set", "seed=7", "--unset", "optimizer.lr", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "seed: 7" in done.stdout
    assert "# --set seed=7" in done.stdout
    (tmp_path / "again.yaml").write_text(done.stdout)
    expected = load_config(config, overrides=["seed=7"], unset=["optimizer.lr"]).config
    assert load_config(tmp_path / "again.yaml").config == expected


def test_show_as_json(tmp_path: Path) -> None:
    done = run("config", "show", str(folder() / "digits_cnn.yaml"), "--json", cwd=tmp_path)
    shown = json.loads(done.stdout)
    assert shown["name"] == "digits_cnn"
    assert shown["config"]["optimizer"]["betas"] == [0.9, 0.999]
    assert shown["origins"]["optimizer.betas"] == "default"


def test_schema_prints_the_shipped_file(tmp_path: Path) -> None:
    done = run("config", "schema", cwd=tmp_path)
    assert done.stdout == (folder() / "trainkit.schema.json").read_text(encoding="utf-8")
    done = run("config", "schema", "--sweep", cwd=tmp_path)
    assert done.stdout == (folder() / "sweep.schema.json").read_text(encoding="utf-8")


def test_init_writes_a_config_that_loads_and_never_overwrites(tmp_path: Path) -> None:
    first = run("init", "-o", "mine.yaml", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    text = (tmp_path / "mine.yaml").read_text()
    assert load_config(tmp_path / "mine.yaml").name == "mine"
    assert text.count("#") > 20, "the starter is commented"
    assert "trainkit train mine.yaml" in text
    second = run("init", "-o", "mine.yaml", cwd=tmp_path)
    assert second.returncode == 2
    assert second.stderr.startswith("error: mine.yaml: there is a file of this name, which is left as it is")
    assert (tmp_path / "mine.yaml").read_text() == text


def test_init_from_a_shipped_config(tmp_path: Path) -> None:
    assert run("init", "--from", "iris_mlp", cwd=tmp_path).returncode == 0
    copy = tmp_path / "iris_mlp.yaml"
    assert load_config(copy).config == load_config(folder() / "iris_mlp.yaml").config
    schema = copy.read_text().splitlines()[0].split("=", 1)[1]
    assert Path(schema).is_file(), "the editor finds the schema from anywhere"
    wrong = run("init", "--from", "iris", "-o", "other.yaml", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "did you mean iris_mlp?" in wrong.stderr
    assert run("init", "-o", "no/folder.yaml", cwd=tmp_path).returncode == 2


def test_list_works_from_an_installed_package(tmp_path: Path) -> None:
    """A wheel holds the configs as ``trainkit/configs``."""
    site = tmp_path / "site"
    shutil.copytree(PACKAGE, site / "trainkit", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(folder(), site / "trainkit" / "configs", dirs_exist_ok=True)
    done = run("config", "list", cwd=tmp_path, source=site)
    lines = done.stdout.splitlines()
    assert len(lines) == len(list_shipped()) + len(list_sweeps())
    for line, config in zip(lines, [*list_shipped(), *list_sweeps()], strict=True):
        assert line.split(None, 1)[0] == config.name
        assert config.description in line
    listed = json.loads(run("config", "list", "--json", cwd=tmp_path, source=site).stdout)
    places = {"config": site / "trainkit" / "configs", "sweep": site / "trainkit" / "configs" / "sweeps"}
    assert all(Path(item["path"]).parent == places[item["kind"]] for item in listed)
    assert {item["kind"] for item in listed} == {"config", "sweep"}
    read_file(Path(listed[0]["path"]))
