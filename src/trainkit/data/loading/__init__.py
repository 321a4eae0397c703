"""The batches of a split: from memory (``resident``), or from image files decoded while training (``workers``)."""
# mypy: implicit-reexport

from trainkit.data.loading.make_batches import evaluation_batch_size, make_batches
from trainkit.data.loading.resident import Batch, ResidentBatches, Sampler, choose_residency, is_mapped
from trainkit.data.loading.transfer import aligned
from trainkit.data.loading.workers import Decoding, WorkerBatches, worker_failure
