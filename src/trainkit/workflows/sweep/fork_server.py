"""Imported by the fork server alone, before its first fork: what all trials have in common."""

import os

import trainkit.workflows.report
import trainkit.workflows.sweep.worker  # noqa: F401

# Signals of the terminal and of a job's process group are for the sweep, which lets each trial save its state.
os.setsid()
