"""Fast runs: no report, no facts for it, and no waiting for the disk (power losses are simulated elsewhere)."""

import file_layers
import pytest


@pytest.fixture
def fast_runs(monkeypatch):
    monkeypatch.setattr("trainkit.workflows.train.finish.report_training", lambda run, setup, *, frontend: None)
    monkeypatch.setattr("trainkit.workflows.train.failures.report_failure", lambda run, *, frontend: None)
    monkeypatch.setattr("trainkit.workflows.train.run.measure_facts", lambda setup: {})
    with file_layers.installed(file_layers.SYNC_FREE):
        yield
