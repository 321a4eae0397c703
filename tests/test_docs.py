"""README and docs/: whole configs in them load, commands in them have these options, links lead somewhere."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml

from trainkit.cli.app import app
from trainkit.config import load_config, load_sweep

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def configs() -> list[tuple[str, str]]:
    """The YAML blocks that are whole configs, with their pages."""
    blocks = [(page.name, body) for page in PAGES for kind, body in BLOCK.findall(page.read_text()) if kind == "yaml"]
    return [
        (name, body)
        for name, body in blocks
        if re.search(r"^dataset:", body, re.M) and re.search("^model:", body, re.M)
    ]


@pytest.mark.parametrize(("page", "text"), configs())
def test_whole_configs_load(tmp_path, page, text):
    given = yaml.safe_load(text)
    assert load_config(given).config.model.type == (
        given["model"] if isinstance(given["model"], str) else given["model"]["type"]
    )


def sweeps() -> list[str]:
    """The YAML blocks that are sweeps."""
    blocks = [body for page in PAGES for kind, body in BLOCK.findall(page.read_text()) if kind == "yaml"]
    return [body for body in blocks if re.search(r"^search:", body, re.M)]


@pytest.mark.parametrize("text", sweeps())
def test_sweeps_load(tmp_path, text):
    (tmp_path / "sweep.yaml").write_text(text)
    assert load_sweep(tmp_path / "sweep.yaml").space


def commands() -> list[str]:
    """What stands in code as a command line: in blocks, indented, and between backticks."""
    found = []
    for page in PAGES:
        text = page.read_text()
        lines = [line for _, body in BLOCK.findall(text) for line in body.splitlines()]
        lines += re.findall(r"^ {4}(.*)", text, re.M) + re.findall(r"`([^`\n]+)`", text)
        found += [part.strip() for line in lines for part in re.split(r"&&|;|\|(?!\|)", line.partition(" #")[0])]
    return sorted({line for line in found if re.match(r"(trainkit|python -m trainkit) [a-z-]+", line)})


def test_commands_and_their_options_exist():
    root = typer.main.get_command(app)
    wrong = []
    lines = commands()
    assert len(lines) > 40
    for line in lines:
        words = shlex.split(line.replace("'", "").replace("...", " "))
        words = words[words.index("trainkit") + 1 :]
        while words and words[0] == "--plugin":
            words = words[2:]
        command = root
        while hasattr(command, "commands") and words and words[0] in command.commands:
            command = command.commands[words.pop(0)]
        if command is root and words and re.fullmatch(r"[a-z][a-z-]*", words[0]):
            wrong.append(f"{line}: no such command")
        options = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
        named = {word.strip("[]").partition("=")[0] for word in words if word.strip("[]").startswith("--")}
        wrong += [f"{line}: no option {name}" for name in named - options - {"--help"}]
    assert not wrong, "\n".join(wrong)


def test_links_to_files_lead_to_files():
    missing = [
        f"{page.name}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert not missing, missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_table_is_cut_by_an_empty_line(page):
    """Its rows behind that are shown as text."""
    beginnings = re.findall(r"\n\n\|.*\n(.*)", page.read_text())
    assert [line for line in beginnings if not re.fullmatch(r"\|[-:| ]+\|", line)] == []


def test_the_image_and_the_release_type_whole_commands():
    """`trainkit selftest` alone shows its help and fails: it is a group."""
    root = typer.main.get_command(app)
    groups = [name for name, command in root.commands.items() if hasattr(command, "commands")]
    files = [ROOT / "Dockerfile", *(ROOT / ".github" / "workflows").glob("*.yml")]
    typed = [words for file in files for words in re.findall(r"\btrainkit ([a-z-]+)(?: ([a-z-]+))?", file.read_text())]
    assert ("selftest", "resume") in typed
    assert not [
        f"{group} {word}" for group, word in typed if group in groups and word not in root.commands[group].commands
    ]


def test_the_mistakes_of_the_readme_look_like_that(tmp_path):
    (shown,) = re.findall(r"^```\n(error: exp\.yaml.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    lines = dict(re.findall(r"^ +(\d) \| (.*)", shown, re.M))
    (tmp_path / "exp.yaml").write_text("\n".join(["dataset: digits", lines["2"], lines["3"]]))
    command = [sys.executable, "-m", "trainkit", "check", "exp.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, shown)


def test_nothing_is_installed_under_a_name_of_another_project():
    """The package index has another trainkit: pip would fetch it where ours is not in the environment."""
    files = [*PAGES, ROOT / "Dockerfile", *(ROOT / "src").rglob("*.py"), *(ROOT / "configs").rglob("*.yaml")]
    assert not [str(file) for file in files if re.search(r"(pip|pipx) install '?trainkit\b", file.read_text())]


def numbers(text: str) -> list[str]:
    return re.findall(r"\d+(?:\.\d+)?", text.replace(",", ""))


@pytest.mark.parametrize(
    ("page", "row", "section"),
    [
        ("README.md", "an epoch of MNIST, MLP", "An epoch of MNIST"),
        ("README.md", "an epoch of MNIST, CNN", "An epoch of MNIST"),
        ("README.md", "99 % of MNIST", "99 % of MNIST"),
        ("README.md", "later epochs of 10,000 JPEGs", "Images in folders"),
        *(("docs/tabular.md", name, "Tables") for name in ("wine", "diabetes", "friedman1", "imbalanced", "flights")),
    ],
)
def test_figures_stand_in_the_benchmarks(page, row, section):
    """Each figure of a table is one that the section of benchmarks/README.md has, rounded."""
    text = (ROOT / "benchmarks" / "README.md").read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    measured = [float(number) for number in numbers(text)]
    (line,) = [line for line in (ROOT / page).read_text().splitlines() if line.startswith(f"| {row}")]
    shown = numbers(line.split("|", 2)[2])
    assert shown
    for number in shown:
        unit = 10.0 ** -len(number.partition(".")[2])
        assert any(abs(value - float(number)) <= 0.5001 * unit for value in measured), f"{row}: {number}"


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda path: path.stem)
def test_a_config_says_how_its_figures_were_measured(path):
    """The command, the machine and the version of torch."""
    header = path.read_text().partition("\n\n")[0]
    if "Measured" in header:
        assert re.search(
            rf"^#   trainkit (train|sweep) configs/(sweeps/)?{path.stem}\.yaml|benchmarks/\w+\.py", header, re.M
        )
        assert re.search(r"torch 2\.\d+", header)
        assert re.search(r"AMD EPYC|Intel Xeon|NVIDIA", header)
