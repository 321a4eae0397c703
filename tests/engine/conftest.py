"""Runs without the report at their end, which takes longer than the runs of these tests."""

import pytest


@pytest.fixture(autouse=True)
def no_report(monkeypatch):
    monkeypatch.setattr("trainkit.workflows.train.finish.report_training", lambda run, setup, *, frontend: None)
