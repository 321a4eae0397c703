"""Imported by the fork server alone, before its first fork: what all trials have in common."""

import gc
import os

import trainkit.workflows.report
import trainkit.workflows.sweep.worker  # noqa: F401

# Signals of the terminal and of a job's process group are for the sweep, which lets each trial save its state.
os.setsid()
# A search for garbage in a trial would touch, and so copy, the pages of all modules.
gc.freeze()
