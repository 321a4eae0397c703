"""Plug-ins as users run them: the example, mistakes in their code and in configs, and files that nobody may import."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import trainkit
from trainkit.config import load_config
from trainkit.config.help import json_schema
from trainkit.config.schema import Config
from trainkit.config.schema.extended import config_class
from trainkit.plugins import active, files_of, installed_for, load_plugin, using
from trainkit.workflows.check import check

SOURCE = Path(trainkit.__file__).parents[1]
EXAMPLE = Path(__file__).parents[1] / "examples" / "plugin"

PARTS = """
    from pydantic import Field
    from torch import nn

    import trainkit


    class Times(nn.Module):
        def forward(self, x):
            return x * 1


    class Keep(trainkit.Section):
        \"\"\"Keeps its input.\"\"\"

        how_often: int = Field(1, ge=1, description="How often.")

        def build(self, input_shape):
            return Times()


    class Net(trainkit.Section):
        \"\"\"A linear model.\"\"\"

        bias: bool = Field(True, description="Whether there is a bias.")

        def build(self, input_shape, output_size):
            return nn.Sequential(nn.Flatten(), nn.Linear(64, output_size, self.bias))


    plugin = trainkit.Plugin("parts", layers=[Keep], models=[Net])
"""
CONFIG = """
    dataset: digits
    model:
      type: sequential
      layers:
        - Flatten
        - {type: parts.Keep}
        - Linear
    training: {epochs: 1}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a plug-in and a config, the current one. Modules that a test imports are forgotten after it."""
    write(tmp_path / "parts.py", PARTS)
    write(tmp_path / "c.yaml", CONFIG)
    monkeypatch.chdir(tmp_path)
    path, modules = list(sys.path), set(sys.modules)
    yield tmp_path
    sys.path[:] = path
    for name in {"parts", "acme", "helper"} & (set(sys.modules) - modules):
        del sys.modules[name]


def write(path: Path, text: str) -> None:
    path.write_text(textwrap.dedent(text).lstrip())


def run(*arguments: str, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "trainkit", *arguments],  # as the installed command: without the folder
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == code, done.stderr
    return done


@pytest.mark.slow
def test_the_example_trains_scores_exports_and_resumes(tmp_path):
    """As its first line says; the exported programs run in a process without trainkit and without the plug-in."""
    for file in EXAMPLE.iterdir():
        if file.is_file():
            shutil.copy(file, tmp_path)
    own = ("--plugin", "acme")
    changes = ("--set", "training.epochs=2", "--set", "training.deterministic=true")
    done = json.loads(run(*own, "train", "train.yaml", *changes, "--json", cwd=tmp_path).stdout)
    assert done["metrics"]["val"]["accuracy"] > 0.3
    info = json.loads((tmp_path / done["run"] / "run.json").read_text())
    assert [(one["name"], one["version"], len(one["sha256"])) for one in info["plugins"]] == [("acme", "", 64)]
    sha256 = info["plugins"][0]["sha256"]
    scored = json.loads(run(*own, "eval", done["run"], "--split", "val", "--json", cwd=tmp_path).stdout)
    assert scored["metrics"]["accuracy"] == done["metrics"]["val"]["accuracy"]
    run(*own, "export", done["run"], "--torchscript", "--pt2", cwd=tmp_path)
    refused = run("eval", done["run"], cwd=tmp_path, code=2)
    assert "acme.SqueezeExcite comes from a plug-in that is not loaded; add --plugin acme" in refused.stderr
    with (tmp_path / "acme.py").open("a") as file:
        file.write("\n# changed\n")
    longer = run(*own, "resume", done["run"], "--set", "training.epochs=3", cwd=tmp_path)
    changed = f"the files of the plug-in acme have changed since the checkpoint was saved (SHA-256 {sha256[:12]} -> "
    assert changed in longer.stderr
    assert f"trainkit --plugin acme predict {done['run']}" in longer.stdout


def test_parts_are_known_while_the_plug_in_is_loaded_and_forgotten_after(folder):
    loaded = trainkit.load_config("c.yaml", plugins=["parts"])
    assert loaded.resolved()["model"]["layers"][1] == {"type": "parts.Keep", "how_often": 1}
    assert [plugin.name for plugin in loaded.config.plugins] == ["parts"]
    assert isinstance(loaded.config, Config)
    with pytest.raises(trainkit.ConfigError) as error:
        trainkit.load_config("c.yaml")
    assert str(error.value) == (
        "c.yaml:6:14: model.layers[1].type: parts.Keep comes from a plug-in that is not loaded; add --plugin parts"
    )
    assert active() == ()
    assert config_class() is Config


def test_python_takes_the_plug_in_itself(folder):
    plugin = trainkit.load_plugin("parts")
    config = {"dataset": "iris", "model": {"type": "sequential", "layers": ["parts.Keep", "Linear"]}}
    result = trainkit.train(config, overrides=["training.epochs=1"], plugins=[plugin], runs_dir=folder / "runs")
    assert trainkit.evaluate(result, plugins=["parts"]).metrics
    loaded = trainkit.load_config(config, overrides=["training.epochs=1"], plugins=[plugin])
    trainkit.train(loaded, runs_dir=folder / "runs")  # it knows its plug-ins
    with pytest.raises(trainkit.ConfigError, match=r"parts\.Keep comes from a plug-in that is not loaded"):
        trainkit.evaluate(result)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model.layers[1].how_oft=1", "did you mean how_often?"),
        ("model.layers[1].type=parts.Kep", "did you mean parts.Keep?"),
        ("model.layers[1].how_often=0", "expected a whole number of at least 1, got 0; the default is 1"),
        ("model=parts.Keep", "sequential, tabular_mlp, torchvision, timm, parts.Net, got 'parts.Keep'"),
        ("model=other.Net", "other.Net comes from a plug-in that is not loaded; add --plugin other"),
        ("optimizer=parts.Lion", "got 'parts.Lion'; a config cannot name code to import"),
        ("model=torch.Net", "got 'torch.Net'; a config cannot name code to import"),
        ("model=/tmp/parts.Net", "got '/tmp/parts.Net'; a config cannot name code to import"),
        ("model=parts.sub.Net", "got 'parts.sub.Net'; did you mean parts.Net?"),
        ("model=their.sub.Network", "got 'their.sub.Network'; a config cannot name code to import"),
    ],
)
def test_mistakes_in_keys_of_plug_ins(folder, change, message):
    with pytest.raises(trainkit.ConfigError) as error:
        trainkit.load_config("c.yaml", overrides=[change], plugins=["parts"])
    assert message in str(error.value)
    assert error.value.problems[0].place.column is not None


def test_sections_inside_of_a_part_may_be_called_as_trainkits_own(folder):
    """The JSON Schema keeps them apart: ``Block`` is a section of ``cnn`` too."""
    block = """
        class Leaf(trainkit.Section):
            \"\"\"A section that holds itself.\"\"\"

            leaves: list["Leaf"] = Field(default_factory=list, description="Leaves.")


        class Block(trainkit.Section):
            \"\"\"A block.\"\"\"

            width: int = Field(8, ge=1, description="Its width.")
            inner: list[Leaf] = Field(default_factory=list, description="Leaves.")
    """
    text = (folder / "parts.py").read_text().replace("class Keep(", textwrap.dedent(block) + "\n\nclass Keep(")
    field = '    bias: bool = Field(True, description="Whether there is a bias.")\n'
    blocks = '    blocks: list[Block] = Field(default_factory=list, description="Blocks.")\n'
    (folder / "parts.py").write_text(text.replace(field, field + blocks))
    with using(["parts"]):
        schema = json_schema()
        assert "channels" in schema["$defs"]["Block"]["properties"]
        assert schema["$defs"]["parts_Block"]["properties"]["width"]["description"] == "Its width."
        model = {"type": "parts.Net", "blocks": [{"width": 3, "inner": [{"leaves": [{}]}]}]}
        assert load_config({"dataset": "iris", "model": model}).resolved()["model"]["blocks"][0]["width"] == 3
        with pytest.raises(trainkit.ConfigError, match=r"model\.blocks\[0\]\.widht: .*did you mean width"):
            load_config({"dataset": "iris", "model": {"type": "parts.Net", "blocks": [{"widht": 3}]}})


def test_two_parts_of_one_name():
    part = type("Part", (trainkit.Section,), {"__doc__": "A part."})
    with pytest.raises(trainkit.UserError, match=r"two parts are called Part"):
        trainkit.Plugin("own", layers=[part], models=[part])


@pytest.mark.slow
def test_schema_completion_and_config_show(folder):
    schema = json.loads(run("--plugin", "parts", "config", "schema", cwd=folder).stdout)
    assert schema["$defs"]["parts_Keep"]["properties"]["how_often"]["description"] == "How often."
    assert {"$ref": "#/$defs/parts_Net"} in schema["properties"]["model"]["anyOf"]
    assert "parts.Keep" in schema["$defs"]["ResidualLayers"]["properties"]["residual"]["items"]["anyOf"][0]["enum"]
    shown = run("--plugin", "parts", "config", "show", "c.yaml", "--set", "model=parts.Net", cwd=folder).stdout
    assert "  bias: true" in shown
    for words, expected in (("--set model=p", "model=parts.Net"), ("--set model.bi", "model.bias=")):
        environment = {
            "_TRAINKIT_COMPLETE": "complete_bash",
            "COMP_WORDS": f"trainkit --plugin parts train c.yaml {words}",
        }
        environment["COMP_CWORD"] = str(len(environment["COMP_WORDS"].split()) - 1)
        program = "import sys; sys.argv = ['trainkit']; from trainkit.__main__ import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(SOURCE), **environment},
            capture_output=True,
            text=True,
        )
        assert expected in done.stdout.split(), done.stderr


MISTAKES = [
    (
        "return Times()",
        "return Tims()",
        "c.yaml:6:7: model.layers[1]: parts.py:18: NameError: name 'Tims' is not defined",
    ),
    ("return Times()", "return 3", "model.layers[1]: build of parts.Keep has to return an nn.Module, got int"),
    (
        "x * 1",
        "x.nothing",
        "model.layers[1]: parts.py:9: Times does not take its input (N, 64): 'Tensor' object has no ",
    ),
    ("return Times()", "return nn.LazyLinear(3)", "parts.Keep has a LazyLinear without a size; give it one, from"),
    ("x * 1", "x[0, 0]", "model.layers[1]: parts.Keep makes () of (2, 64); the first dimension of a layer's output is"),
    ("from torch", "from torhc", "parts.py:2: No module named 'torhc'"),
    ("class Net(", "class Net((", "parts.py:21: SyntaxError: "),
    ("import trainkit", "import trainkit; 1 / 0", "parts.py:4: ZeroDivisionError: division by zero (--plugin parts)"),
    ("plugin =", "plug =", "parts.py has no `plugin = trainkit.Plugin(...)`"),
    (', description="How often."', "", "parts.py:12: parts.Keep: how_often has no description"),
    ("how_often: int", "how_often: Number", "parts.py:15: NameError: name 'Number' is not defined"),
    ("how_often: int", "how_often: 'Number'", "parts.py:12: parts.Keep: its fields are not types that pydantic knows"),
    ("how_often: int", "type: int", "parts.py:12: parts.Keep: its type is its name"),
    (
        "def build(self, input_shape):",
        "def make(self, input_shape):",
        "parts.py:12: parts.Keep: it has no build method",
    ),
    ('"""Keeps its input."""', "", "parts.Keep: it has no docstring"),
    ("class Keep(trainkit.Section)", "class Keep", "parts.py:12: parts.Keep: a part of a plug-in is a class"),
    ('Plugin("parts"', 'Plugin("my parts"', "parts.py:30: Plugin('my parts'): its name begins the names"),
]


@pytest.mark.parametrize(("old", "new", "message"), MISTAKES)
def test_a_mistake_in_a_plug_in_names_its_line(folder, old, new, message):
    text = (folder / "parts.py").read_text()
    assert old in text
    (folder / "parts.py").write_text(text.replace(old, new, 1))
    with pytest.raises(trainkit.UserError) as error, using(["parts"]):
        check(load_config("c.yaml"))
    assert message in str(error.value)


@pytest.mark.slow
def test_an_error_while_training_names_its_line(folder):
    text = (folder / "parts.py").read_text()
    late = "if self.training and len(x) == 64 and x.device.type == 'cpu' and x.sum() != 0: raise KeyError('late')"
    (folder / "parts.py").write_text(text.replace("return x * 1", f"{late}\n        return x * 1"))
    done = run("--plugin", "parts", "train", "c.yaml", cwd=folder, code=1)
    assert done.stderr.splitlines()[-1] == "error: parts.py:9: KeyError: 'late'; --debug shows the traceback"
    assert "Traceback" not in done.stderr
    assert "Traceback" in run("--debug", "--plugin", "parts", "train", "c.yaml", cwd=folder, code=1).stderr


@pytest.mark.parametrize("name", ["nowhere", "../parts", "parts.py", "json", "parts:plugin", "parts.nothing", ""])
def test_what_is_no_plug_in(folder, name):
    with pytest.raises(trainkit.UserError, match=r"^--plugin"):
        load_plugin(name)


def test_two_of_one_name(folder):
    shutil.copy("parts.py", "helper.py")
    with pytest.raises(trainkit.UserError, match="two plug-ins have the name parts"), using(["parts", "helper"]):
        pass
    with using(["parts", "parts"]):
        assert len(active()) == 1


@pytest.mark.slow
def test_a_file_in_the_current_folder_hides_no_library(folder):
    """``string.py`` beside the plug-in stays a file of the user's."""
    (folder / "string.py").write_text("raise SystemExit('imported')")
    run("--plugin", "parts", "check", "c.yaml", cwd=folder)


def test_the_hash_is_of_all_its_files(folder):
    (folder / "parts.py").write_text("from helper import Other\n" + (folder / "parts.py").read_text())
    (folder / "helper.py").write_text("from torch import nn\nclass Other(nn.Module): ...\n")
    plugin = load_plugin("parts")
    assert [path.name for path in files_of("parts")] == ["helper.py", "parts.py"]
    before = plugin.describe()["sha256"]
    (folder / "helper.py").write_text("from torch import nn\nclass Other(nn.Module): pass\n")
    assert plugin.describe()["sha256"] != before


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A distribution with a plug-in, beside the folder that is the current one."""
    site = tmp_path / "site"
    (site / "acme_parts").mkdir(parents=True)
    write(site / "acme_parts" / "__init__.py", PARTS.replace('"parts"', '"acme"') + "\n    offered = plugin")
    (site / "acme_parts-1.2.dist-info").mkdir()
    (site / "acme_parts-1.2.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: acme-parts\nVersion: 1.2\n"
    )
    (site / "acme_parts-1.2.dist-info" / "top_level.txt").write_text("acme_parts\n")
    entry = "[trainkit.plugins]\nacme = acme_parts:offered\n"
    (site / "acme_parts-1.2.dist-info" / "entry_points.txt").write_text(entry)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.syspath_prepend(site)
    yield tmp_path / "here"
    sys.modules.pop("acme_parts", None)


def test_an_installed_plug_in_needs_no_option(installed):
    write(installed / "acme.py", "raise SystemExit('a name in a file imports nothing of this folder')")
    config = {"dataset": "iris", "model": {"type": "acme.Net"}}
    loaded = trainkit.load_config(config)
    assert loaded.config.plugins[0].describe()["version"] == "1.2"
    assert trainkit.load_config({**config, "model": "mlp"}, overrides=["model={type: acme.Net}"]).config.plugins
    assert not trainkit.load_config({**config, "model": "mlp"}).config.plugins
    (installed / "acme.py").unlink()
    assert load_plugin("acme") is loaded.config.plugins[0]


def test_names_of_files_are_not_names_of_parts(monkeypatch):
    monkeypatch.setitem(sys.modules, "importlib.metadata", None)  # nobody looks into the packages
    config = {"dataset": {"type": "table", "path": "flights.csv", "target": "x.y"}, "model": "mlp"}
    assert installed_for(config) == []


HOSTILE = """
    import json
    import sys
    seen = []
    sys.addaudithook(lambda event, args: seen.append(args[0]) if event == "import" else None)
    from trainkit.__main__ import main
    for command in json.loads(sys.argv[1]):
        sys.argv = ["trainkit", *command]
        try:
            main()
        except SystemExit as exit:
            print("exit", exit.code, "imported", [name for name in seen if "evil" in str(name)])
"""


MODELS = [
    "evil.Net",
    "{type: evil.Net}",
    "{type: ./evil.Net}",
    "{type: evil}",
    "{type: 'evil:Net'}",
    "{type: evil.py}",
    "{type: evil.sub.Net, plugin: evil}",
    "{type: sequential, layers: [evil.Net, {type: evil.Net, path: evil.py}]}",
    "{type: sequential, layers: [{residual: [evil.Net]}]}",
    "{type: sequential, layers: [{_target_: evil.Net}]}",
    "mlp\nplugins: [evil]\n",
    "mlp\nplugin: evil\n",
    "mlp\nloss: evil.Loss\n",
    "mlp\ntransforms: [evil.Jitter]\n",
    "mlp\nlogging: {metrics: [val_evil.X]}\n",
    "mlp\ncheckpoint: {monitor: val_evil.X}\n",
]


def test_hostile_configs_and_checkpoints_import_nothing(tiny_run, tmp_path):
    """Configs and checkpoints that name modules, paths and parts of plug-ins that nobody has loaded."""
    import torch

    (tmp_path / "evil.py").write_text("open('pwned', 'w')")
    configs = [f"c{number}.yaml" for number in range(len(MODELS))]
    for name, model in zip(configs, MODELS, strict=True):
        (tmp_path / name).write_text(f"dataset: digits\nmodel: {model}\n")
    changes = [{"model": {"type": "evil.Net"}}, {"dataset": "evil.Data"}, {"loss": "/evil.Net"}]
    for number, change in enumerate(changes):
        saved = torch.load(tiny_run.best_checkpoint, weights_only=True)
        saved["config"] |= change
        saved["plugins"] = [{"name": "evil", "module": "evil", "version": "1", "sha256": ""}]
        torch.save(saved, tmp_path / f"hostile{number}.pth")
    (tmp_path / "good.yaml").write_text("dataset: digits\nmodel: {type: mlp, hidden_sizes: [32]}\n")
    commands = [["check", name] for name in configs]
    for number in range(len(changes)):
        file = f"hostile{number}.pth"
        commands += [["eval", file], ["export", file, "--torchscript"], ["train", "good.yaml", "--resume", file]]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(HOSTILE), json.dumps(commands)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("exit")]
    assert lines == ["exit 2 imported []"] * len(commands), done.stderr
    assert not (tmp_path / "pwned").exists()
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_child_processes_get_the_plug_in(folder):
    """Those of selftest, and those that measure for bench."""
    write(folder / "c.yaml", CONFIG.replace("epochs: 1", "epochs: 2, batch_size: 128"))
    done = run("--plugin", "parts", "selftest", "resume", "c.yaml", "--kills", "1", "--seed", "0", "--json", cwd=folder)
    assert json.loads(done.stdout)["passed"]
    assert json.loads(run("--plugin", "parts", "bench", "c.yaml", "--seconds", "0.2", "--json", cwd=folder).stdout)
