"""The place of a process among those that share a run, as their launcher tells it."""

import os

import pytest

from trainkit.errors import UserError
from trainkit.system import launched

OURS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID")
SLURM = {"PROCID": "9", "NTASKS": "11", "LOCALID": "1", "JOB_ID": "70123", "NODEID": "2"}


@pytest.fixture
def start(monkeypatch):
    """What ``--launcher slurm`` makes of these variables: rank, size, rank and ranks here, address."""

    def start(**variables: str) -> tuple:
        for name in OURS:  # what is set below is forgotten after the test
            monkeypatch.setenv(name, "")
            monkeypatch.delenv(name)
        for name, value in {**SLURM, **variables}.items():
            monkeypatch.setenv(f"SLURM_{name}", value)
        launched.set_from_slurm()
        here = launched.local_rank(), launched.ranks_here()
        return launched.rank(), launched.num_ranks(), *here, os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]

    return start


def test_three_machines_with_different_numbers(start):
    place = start(JOB_NODELIST="gpu[003-005]", TASKS_PER_NODE="4(x2),3")
    assert place == (9, 11, 1, 3, "gpu003", "30123")
    assert start(JOB_NODELIST="gpu[003-005]", TASKS_PER_NODE="4(x2),3", NODEID="1")[3] == 4


def test_a_step_on_a_part_of_the_job(start):
    """Its own machines and tasks count, and it has a port of its own."""
    job = {"JOB_NODELIST": "a1,b[07,9-11]", "TASKS_PER_NODE": "8(x5)"}
    step = {"STEP_NODELIST": "b[07,9-10]", "STEP_TASKS_PER_NODE": "4,4,3", "STEP_ID": "2"}
    assert start(**job, **step) == (9, 11, 1, 3, "b07", "30325")
    assert start(**job, STEP_NODELIST="", STEP_TASKS_PER_NODE="", STEP_ID="0")[4] == "a1"


def test_what_the_user_has_set_holds(start, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n1")
    for name in OURS:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.1")
    for name, value in SLURM.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    launched.set_from_slurm()
    assert os.environ["MASTER_ADDR"] == "10.0.0.1"
    assert launched.ranks_here() == 1  # not said


def test_outside_of_a_job(monkeypatch):
    monkeypatch.delenv("SLURM_PROCID", raising=False)
    with pytest.raises(UserError, match="start the command by srun"):
        launched.set_from_slurm()
