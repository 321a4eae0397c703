"""Processes that share a run, forked from others that have imported torch: tenths of a second each, not seconds."""

import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from real_processes import Ended, ForkServer

CNN = """
seed: 3
dataset: {type: digits}
transforms: [{type: random_crop, size: 8, padding: 1}, {type: random_vertical_flip, alternate: true}, normalize]
model: {type: cnn, norm: batch, dropout: 0.1, blocks: [{channels: 6}, {channels: 8, pool: 2}], init: whiten}
training: {epochs: 2, batch_size: 61, accumulation_steps: 4, num_threads: 1, clip_grad_norm: 1.0}
logging: {every: 5, plots: false}
"""
"""A ragged last batch, random crops, flips in turn, batch norm, dropout, clipping, first weights by the data."""


class ForkedRanks:
    """They find each other by the environment that torchrun sets; nobody watches them."""

    def __init__(self, most: int) -> None:
        self.servers = [ForkServer() for _ in range(most)]

    def trainkit(
        self, *arguments: object, folder: Path, size: int, machines: int = 1, orders: dict[int, dict] | None = None
    ) -> list[Ended]:
        """Run a command in ``size`` processes, in ``folder``; how each ended, by rank.

        Args:
            machines: that they believe to run on.
            orders: for the child of a rank, see ``training_loop``.
        """
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        common = {"WORLD_SIZE": size, "MASTER_ADDR": "localhost", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test"}
        common |= {"LOCAL_WORLD_SIZE": size // machines} if size > 1 else {"TORCHELASTIC_RUN_ID": None}

        def run(rank: int) -> Ended:
            named = {**common, "RANK": rank, "LOCAL_RANK": rank % (size // machines)}
            environment = {name: str(value) for name, value in named.items() if value is not None}
            order = {"environment": environment, "said": str(folder / "said.txt"), "output": f"rank{rank}.txt"}
            return self.servers[rank].trainkit(*arguments, cwd=folder, **order, **(orders or {}).get(rank, {}))

        with ThreadPoolExecutor(size) as pool:
            return list(pool.map(run, range(size)))

    def close(self) -> None:
        for server in self.servers:
            server.close()
