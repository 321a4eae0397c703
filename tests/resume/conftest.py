"""Fast runs: no report, no facts for it, and no waiting for the disk (power losses are simulated elsewhere)."""

import file_layers
import pytest


@pytest.fixture
def fast_runs(monkeypatch):
    monkeypatch.setattr("trainkit.workflows.train.report_training", lambda run, experiment, *, stop, say: None)
    monkeypatch.setattr("trainkit.workflows.train.report_failure", lambda run, *, say: None)
    monkeypatch.setattr("trainkit.workflows.train.measure_facts", lambda experiment: {})
    with file_layers.installed(file_layers.SYNC_FREE):
        yield
