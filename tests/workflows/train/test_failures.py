"""Errors of PyTorch about memory, in words for the user."""

import pytest
import torch

from trainkit.workflows.train.failures import out_of_memory


def real_error() -> RuntimeError:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50)
    return caught.value


@pytest.mark.parametrize(
    ("error", "start"),
    [
        (real_error(), "out of memory: batch_size 64, 4503599627370496 bytes more were asked for; "),
        (MemoryError(), "out of memory: batch_size 64; "),
        (RuntimeError("unable to mmap 9 bytes from file <x>: Cannot allocate memory (12)"), "out of memory: batch"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has ..."),
            "out of memory of the device: batch_size 64, 20.00 MiB more were asked for; ",
        ),
        (
            RuntimeError(
                "MPS backend out of memory (MPS allocated: 9 GB). Tried to allocate 256.00 MB on private pool."
            ),
            "out of memory of the device: batch_size 64, 256.00 MB more were asked for; ",
        ),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            "out of memory of the device: batch_size 64; ",
        ),
    ],
    ids=["cpu", "python", "shared memory", "cuda", "mps", "cublas"],
)
def test_memory_that_runs_out_is_explained_on_every_device(error, start):
    found = out_of_memory(error, batch_size=64)
    assert found is not None
    assert str(found).startswith(start)
    assert "accumulation_steps" in str(found)


def test_any_other_error_passes():
    assert out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"), batch_size=64) is None
