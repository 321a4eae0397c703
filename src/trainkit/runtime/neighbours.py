"""Small messages between the processes of one machine, by Unix sockets: a tenth of the time of gloo's collectives."""

from __future__ import annotations

import socket
import struct
import sys

import torch
from torch import Tensor

_LARGEST = 1 << 16
"""Bytes of a message. The kernel keeps the two that a receiver may be behind, so nobody waits to send one."""


class Neighbours:
    """Connections to all other ranks, which are on this machine.

    Args:
        name: of the run's start, which no other start has.
    """

    def __init__(self, name: str, rank: int, size: int) -> None:
        """Raises OSError where the system has no such thing."""
        if sys.platform != "linux":
            raise OSError("not a Linux system")
        self.name, self.rank, self.size = name, rank, size
        self.sockets: dict[int, socket.socket] = {}
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self._address(rank))
        self.listener.listen(size)

    def _address(self, rank: int) -> str:
        """In Linux's abstract namespace: no file, and gone with the process."""
        return f"\0trainkit/{self.name}/{rank}"

    def connect(self, *, patience: float) -> None:
        """Connect to all others, once all of them listen.

        Args:
            patience: seconds to wait for them, now and in ``gather``.

        Raises:
            OSError: one of them is not on this machine.
        """
        for other in range(self.rank):
            self.sockets[other] = one = socket.socket(socket.AF_UNIX)
            one.connect(self._address(other))
            one.sendall(self.rank.to_bytes(4, "little"))
        self.listener.settimeout(patience)
        while len(self.sockets) < self.size - 1:
            one, _ = self.listener.accept()
            one.settimeout(patience)
            self.sockets[int.from_bytes(one.recv(4, socket.MSG_WAITALL), "little")] = one
        self.listener.close()
        wait = struct.pack("ll", int(patience), int(patience % 1 * 1e6))
        for one in self.sockets.values():
            one.settimeout(None)  # the kernel's own timeout: one system call for a message, where Python's takes two
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, wait)

    def carries(self, message: Tensor) -> bool:
        """Whether ``gather`` takes such a message."""
        return message.device.type == "cpu" and message.numel() * message.element_size() <= _LARGEST

    def gather(self, mine: Tensor, table: Tensor) -> None:
        """Fill a table with the messages of all ranks: (F,) to (N, F).

        Raises:
            OSError: another process is gone, or did not answer in time.
        """
        table[self.rank] = mine
        rows = table.view(torch.uint8).numpy()
        for one in self.sockets.values():
            one.sendall(rows[self.rank])
        for rank, one in self.sockets.items():
            place = rows[rank]
            while len(place):
                try:
                    count = one.recv_into(place, 0, socket.MSG_WAITALL)
                except BlockingIOError:
                    raise TimeoutError("timed out") from None
                if not count:
                    raise ConnectionResetError("the connection is closed")
                place = place[count:]

    def wait(self) -> None:
        """Return when all ranks have called it."""
        self.gather(torch.zeros(1), torch.zeros(self.size, 1))

    def close(self) -> None:
        for one in (self.listener, *self.sockets.values()):
            one.close()
