"""What several test files share."""

import os
from pathlib import Path

import pytest
import torch_forks
from hypothesis import HealthCheck, settings

# A test process for each core: threads of their own would only wait for each other. For child processes too.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Tests that ask for two threads run beside other processes: a thread that waits must not keep the core busy.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# A machine that is busy fails no test.
settings.register_profile("any speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any speed")

LONG = (
    *("workflows/train/", "exports/", "workflows/", "test_", "builders/test_published_networks.py"),
    *("engine/test_resume_property.py", "system/test_run_folder.py", "config/test_config_fuzz.py", "web/", "cli/"),
)
"""Where the tests are that take longest. They begin first: short ones at the end leave no core without work."""


def pytest_configure(config):
    """Beside a GPU too, tests are about the CPU, but those of ``pytest -m gpu``: some count what a graph replays."""
    if "gpu" not in config.option.markexpr:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(items):
    """Long tests come first; those marked ``gpu`` are skipped where there is no CUDA device."""
    folder = Path(__file__).parent
    places = {path: path.relative_to(folder).as_posix() for path in {item.path for item in items}}
    ranks = {path: [place.startswith(one) for one in (*LONG, "")].index(True) for path, place in places.items()}
    items.sort(key=lambda item: ranks[item.path])
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device, and pytest -m gpu"))


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Decoded images go into a folder of this test session, not into the user's cache."""
    before = os.environ.get("TRAINKIT_CACHE")
    os.environ["TRAINKIT_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    os.environ.pop("TRAINKIT_CACHE") if before is None else os.environ.update(TRAINKIT_CACHE=before)


@pytest.fixture(autouse=True)
def tests_are_no_plugin(monkeypatch):
    """A plug-in that a test file makes does not make all tests the code of one, which messages would then name."""
    from trainkit import plugins

    kept = {folder for folder in plugins._FOLDERS if not Path(__file__).is_relative_to(folder)}
    monkeypatch.setattr(plugins, "_FOLDERS", kept)


@pytest.fixture(scope="module")
def forked_checks():
    """Exported programs are checked in forks of a process that has imported PyTorch; ``exports/`` has the real ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainkit.exports.parity.run_child", torch_forks.run_child)
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Real MNIST and a small image folder."""
    folder = os.environ.get("TRAINKIT_TEST_DATA")
    if not folder:
        pytest.skip("TRAINKIT_TEST_DATA is not set: it names the folder with MNIST/ and cifar10-mini/")
    return Path(folder)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """A finished run of the digits: a small network, two epochs."""
    from trainkit.config import load_config
    from trainkit.workflows.train.run import train

    overrides = ["training.epochs=2", "model.hidden_sizes=[32]", "export.torchscript=false"]
    loaded = load_config(Path(__file__).parents[1] / "configs" / "digits_mlp.yaml", overrides=overrides)
    return train(loaded, runs_dir=tmp_path_factory.mktemp("runs"))
