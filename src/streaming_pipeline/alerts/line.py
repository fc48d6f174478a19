"""The connection of a delivery, which can be cut from outside however slowly the other side talks."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock, Timer
from typing import Any

TIMEOUT_SECONDS = 20.0
"""So long a server may be silent."""
LIMIT_OF_TIMEOUTS = 3
"""A whole delivery may take so many times that: a server that sends a byte now and then is never silent."""


class Line:
    """A connection that `cut` ends, also from another thread while somebody waits for it."""

    def __init__(self) -> None:
        self.is_cut = False
        self._ends: list[socket.socket] = []
        self._lock = Lock()

    @contextmanager
    def limited(self, seconds: float) -> Iterator[None]:
        """Cut the line if the block takes longer."""
        timer = Timer(seconds, self.cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def open(self, address: tuple[str, int], timeout: float, *_: Any) -> socket.socket:
        """Connect, as `socket.create_connection` does. Raises `OSError`, also when the line was cut."""
        failure: OSError = TimeoutError("the line was cut")
        for family, kind, protocol, _, place in socket.getaddrinfo(*address, type=socket.SOCK_STREAM):
            connection = None
            try:
                connection = socket.socket(family, kind, protocol)  # a machine may lack one of the families
                connection.settimeout(timeout)
                # A second handle, since TLS takes the first one for itself.
                self._hold(connection.dup())
                connection.connect(place)
                return connection
            except OSError as error:
                if connection:
                    connection.close()
                failure = error
        raise failure

    def cut(self) -> None:
        """End the connection at once, and let no other begin."""
        with self._lock:
            self.is_cut = True
        self.close()

    def close(self) -> None:
        """Let go of the connection."""
        with self._lock:
            ends, self._ends = self._ends, []
        for end in ends:
            with suppress(OSError):  # it may have ended by itself
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _hold(self, end: socket.socket) -> None:
        with self._lock:
            self._ends.append(end)
            if not self.is_cut:
                return
        self.close()
        raise TimeoutError("the line was cut")
