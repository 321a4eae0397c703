"""Settings and generators of the process are those of the caller again."""

import os
import random
import threading
import warnings

import numpy as np
import pytest
import torch

from trainkit.runtime import claim, own_settings, seed_default_generators, use_tf32

PRECISIONS = [
    torch.backends,
    *(torch.backends.cuda.matmul, torch.backends.cudnn, torch.backends.cudnn.conv, torch.backends.cudnn.rnn),
    *(torch.backends.mkldnn, torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv, torch.backends.mkldnn.rnn),
]


def state() -> list:
    return [
        *[holder.fp32_precision for holder in PRECISIONS],
        *(torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()),
        *(torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark),
        *(torch.get_deterministic_debug_mode(), torch.utils.deterministic.fill_uninitialized_memory),
        *(list(warnings.filters), os.environ.get("CUBLAS_WORKSPACE_CONFIG")),
        *(torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()),
    ]


def change_everything() -> None:
    """What trainkit does on CUDA, where this machine has it or not."""
    torch.set_num_threads(1 if torch.get_num_threads() > 1 else 2)
    use_tf32("tf32" if torch.backends.cuda.matmul.fp32_precision != "tf32" else "fp32")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.deterministic = not torch.backends.cudnn.deterministic
    torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    seed_default_generators(7, "dropout", 3, device=torch.device("cpu"))
    warnings.simplefilter("ignore")
    claim(torch.device("cpu"))


NOTEBOOKS = {
    "as imported": lambda: None,
    "medium": lambda: torch.set_float32_matmul_precision("medium"),
    "high": lambda: torch.set_float32_matmul_precision("high"),
    "older settings": lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True),
    "newer settings": lambda: setattr(torch.backends, "fp32_precision", "tf32"),
    "one newer setting": lambda: setattr(torch.backends.cudnn.conv, "fp32_precision", "ieee"),
    "float64": lambda: torch.set_default_dtype(torch.float64),
    "threads": lambda: torch.set_num_threads(2),
}


@pytest.fixture(params=NOTEBOOKS)
def notebook(request):
    """A process with settings of its own. Afterwards all is as it was, which is what is tested."""
    with own_settings():
        NOTEBOOKS[request.param]()
        yield


def test_settings_and_generators_are_put_back(notebook):
    before = state()
    with own_settings():
        assert torch.get_default_dtype() == torch.float32
        assert torch.backends.mkldnn.matmul.fp32_precision != "bf16"
        change_everything()
        assert state() != before
    assert state() == before


def test_after_an_error_too(notebook):
    @own_settings()
    def fail() -> None:
        change_everything()
        raise ZeroDivisionError

    before = state()
    with pytest.raises(ZeroDivisionError):
        fail()
    assert state() == before


def test_what_a_notebook_turned_off_is_on_inside():
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16), torch.device("meta"):
        with own_settings():
            layer = torch.nn.Linear(2, 2)
            outputs = layer(torch.ones(1, 2))
            assert outputs.dtype == torch.float32
            outputs.sum().backward()
            assert layer.weight.grad is not None
        assert torch.is_inference_mode_enabled()
        assert torch.is_autocast_enabled("cpu")
        assert torch.ones(1).device.type == "meta"


def test_a_call_inside_a_call_puts_back_what_the_outer_one_set():
    before = state()
    with own_settings():
        change_everything()
        outer = state()
        with own_settings():
            change_everything()
        assert state() == outer
    assert state() == before


def test_calls_that_overlap_in_threads_leave_what_the_first_one_found():
    before = state()
    first_ended = threading.Event()

    def second() -> None:
        with own_settings():
            started.set()
            first_ended.wait()
            use_tf32("tf32")

    started = threading.Event()
    thread = threading.Thread(target=second)
    with own_settings():
        change_everything()
        thread.start()
        started.wait()
    first_ended.set()
    thread.join()
    assert state() == before
