"""Settings of PyTorch and the generators, which belong to the whole process: kept for a program that calls trainkit."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

import torch

_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
_BACKENDS: Any = torch.backends
_FP32: tuple[Any, ...] = (
    *(_BACKENDS.mkldnn.matmul, _BACKENDS.mkldnn.conv, _BACKENDS.mkldnn.rnn, _BACKENDS.mkldnn),
    *(_BACKENDS.cudnn.conv, _BACKENDS.cudnn.rnn, _BACKENDS.cudnn, _BACKENDS.cuda.matmul, _BACKENDS),
)
"""Each has a ``fp32_precision``; setting that of a later one sets some of the earlier ones too."""
_calls: list[list[ExitStack]] = []
"""What each running call found, oldest first; calls in several threads may overlap."""
_lock = threading.Lock()


@contextmanager
def own_settings() -> Iterator[None]:
    """PyTorch's own defaults for the time of a call; then all is as it was: settings, generators, warning filters.

    Where calls in several threads overlap, the last one to end leaves what the first one found.
    """
    threads = torch.get_num_threads()
    call = [_remember()]
    with _lock:
        _calls.append(call)
    try:
        with ExitStack() as stack:
            _enter_defaults(stack)
            yield
    finally:
        with _lock:
            at = _calls.index(call)
            del _calls[at]
            if at < len(_calls):
                _calls[at][:] = call  # a later call still runs: it puts this back
            else:
                call[0].close()
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)  # a thread has its own


def _enter_defaults(stack: ExitStack) -> None:
    """What a notebook may have set, and what a run does not expect."""
    stack.enter_context(torch.inference_mode(False))
    stack.enter_context(torch.enable_grad())
    if torch.get_default_device().type != "cpu":
        stack.enter_context(torch.device("cpu"))
    for kind in ("cpu", "cuda"):
        if torch.is_autocast_enabled(kind):
            stack.enter_context(torch.autocast(kind, enabled=False))
    torch.set_default_dtype(torch.float32)
    torch.set_float32_matmul_precision("highest")
    warnings.filterwarnings("ignore", module=r"PIL\.")  # as the decoder does, once for a process


def _remember() -> ExitStack:
    """All that trainkit may change; closing it puts that back, the last line first."""
    stack = ExitStack()
    stack.enter_context(warnings.catch_warnings())
    cudnn: Any = torch.backends.cudnn
    fill: Any = torch.utils.deterministic
    _put_back(stack, partial(_set_environment, _CUBLAS), os.environ.get(_CUBLAS))
    _put_back(stack, torch.set_default_dtype, torch.get_default_dtype())
    for holder in _FP32:
        _put_back(stack, partial(setattr, holder, "fp32_precision"), holder.fp32_precision)
    with suppress(RuntimeError):  # older settings, which PyTorch does not tell where only the newer ones were used
        _put_back(stack, partial(setattr, cudnn, "allow_tf32"), cudnn.allow_tf32)
    with suppress(RuntimeError):
        _put_back(stack, torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
    for name in ("deterministic", "benchmark"):
        _put_back(stack, partial(setattr, cudnn, name), getattr(cudnn, name))
    _put_back(stack, torch.set_deterministic_debug_mode, torch.get_deterministic_debug_mode())
    _put_back(stack, partial(setattr, fill, "fill_uninitialized_memory"), fill.fill_uninitialized_memory)
    _put_back(stack, torch.set_rng_state, torch.get_rng_state())
    if torch.backends.mps.is_available():
        _put_back(stack, torch.mps.set_rng_state, torch.mps.get_rng_state())
    if torch.cuda.is_initialized():
        _put_back(stack, torch.cuda.set_device, torch.cuda.current_device())
        _put_back(stack, torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all())
    else:
        _put_back(stack, _reset_cuda, torch.initial_seed())
    return stack


def _put_back(stack: ExitStack, put: Callable[[Any], object], value: Any) -> None:
    stack.callback(put, value)


def _set_environment(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def _reset_cuda(seed: int) -> None:
    """The generators of CUDA where it was started since: ``torch.manual_seed`` gives all devices the CPU's seed."""
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
        torch.cuda.set_device(0)
