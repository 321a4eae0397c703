"""The batches of a split: from memory (``resident``), or from image files decoded while training (``workers``)."""

from trainkit.data.loading.make_batches import evaluation_batch_size, make_batches
from trainkit.data.loading.resident import Batch, ResidentBatches, Sampler, choose_residency, is_mapped
from trainkit.data.loading.transfer import aligned
from trainkit.data.loading.workers import Decoding, WorkerBatches, worker_failure

__all__ = [
    "Batch",
    "Decoding",
    "ResidentBatches",
    "Sampler",
    "WorkerBatches",
    "aligned",
    "choose_residency",
    "evaluation_batch_size",
    "is_mapped",
    "make_batches",
    "worker_failure",
]
