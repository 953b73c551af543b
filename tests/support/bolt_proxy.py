"""A small TCP proxy in front of a Bolt server, to cut lines on purpose."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

COMMIT = b"\x00\x02\xb0\x12\x00\x00"
"""The Bolt message COMMIT: a chunk of two bytes (a structure without fields, tag 0x12), then the end of the message."""


class BoltProxy:
    """Passes bytes on between clients and the server until told to cut."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: set[socket.socket] = set()
        self._guard = threading.Lock()
        self._down = threading.Event()
        self._swallowing = False
        self._commits = 0
        self.swallowed = 0
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._down.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._close_all()
        for thread in self._threads:
            thread.join(10)

    def cut(self, seconds: float) -> None:
        """Break every line now, and every new one for a while."""
        self._down.set()
        self._close_all()
        timer = threading.Timer(seconds, self._down.clear)
        timer.daemon = True
        timer.start()

    def swallow_every_other_answer_to_commit(self, on: bool) -> None:
        """Let commits through, but break the line of every other one before its answer comes back."""
        with self._guard:
            self._swallowing = on

    def _close_all(self) -> None:
        with self._guard:
            for line in self._open:
                with suppress(OSError):
                    line.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._down.is_set():
                client.close()
                continue
            server = socket.create_connection(self._target)
            with self._guard:
                self._open |= {client, server}
            swallowing = threading.Event()
            self._start(self._pass, client, server, swallowing, True)
            self._start(self._pass, server, client, swallowing, False)

    def _pass(self, source: socket.socket, sink: socket.socket, swallowing: threading.Event, from_client: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                if from_client and COMMIT in data:
                    with self._guard:
                        self._commits += 1
                        if self._swallowing and self._commits % 2:
                            swallowing.set()
                elif not from_client and swallowing.is_set():
                    self.swallowed += 1
                    break  # the answer: whatever was to be committed is committed
                sink.sendall(data)
        for line in (source, sink):
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
        with self._guard:
            self._open.discard(source)
        source.close()
