"""A TCP proxy that breaks connections in the ways in which networks do.

    pass         bytes go through, each piece `delay_s` later
    hold         nothing moves and nothing is lost: it goes on where it was; with `old_only` later connections pass
    drop_up      what the client says is lost, the answers come through
    drop_down    what the client says arrives, the answers are lost
    half_open    old connections are silent, new ones are accepted and lead nowhere
    cut          all connections are reset, new ones too

A fault may hit a share of the connections only: then some of those who talk to the target see it and others do not.
Bytes that were lost leave a hole, so connections that lost some are reset when the fault ends. One event loop on a
thread of its own serves a proxy; its methods may be called from any thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import threading
from dataclasses import dataclass, field

PIECE = 65_536
FAULTS = ("hold", "drop_up", "drop_down", "half_open", "cut", "delay")


@dataclass(eq=False)
class _Connection:
    """A client's connection and ours to the target."""

    transports: list[asyncio.BaseTransport] = field(default_factory=list)
    old: bool = False
    """It was there when the fault began."""
    hit: bool = True
    """The fault is one for this connection."""
    holed: bool = False
    silent: bool = False

    def reset(self) -> None:
        for transport in self.transports:
            if isinstance(transport, asyncio.WriteTransport):
                transport.abort()


class Proxy:
    """Forwards `host`:`port` to `target`, which may change."""

    def __init__(self, target: tuple[str, int], port: int = 0, host: str = "127.0.0.1") -> None:
        self._host = host
        self._listener = socket.create_server((host, port))
        self.port: int = self._listener.getsockname()[1]
        self._target = target
        self._mode, self._old_only, self._delay_s, self._share = "pass", False, 0.0, 1.0
        self._connections: set[_Connection] = set()
        self._loop = asyncio.new_event_loop()
        self._changed = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name=f"proxy-{self.port}")
        self._thread.start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def address(self) -> str:
        return f"{self._host}:{self.port}"

    def close(self) -> None:
        """Resets everything and frees the port."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stop)
        self._thread.join(5)

    def set(self, mode: str, *, old_only: bool = False, delay_s: float = 0.0, share: float = 1.0) -> None:
        """Changes what happens to bytes from now on, for this share of the connections."""
        self._in_loop(lambda: self._set(mode, old_only, delay_s, share))

    def heal(self) -> None:
        """All is well again."""
        self.set("pass")

    def retarget(self, target: tuple[str, int]) -> None:
        """Leads elsewhere: connections to the old target are reset."""
        self._in_loop(lambda: self._retarget(target))

    # -- in the loop --------------------------------------------------------------------------------------------

    def _in_loop(self, action: object) -> None:
        done = threading.Event()

        def call() -> None:
            assert callable(action)
            action()
            done.set()

        self._loop.call_soon_threadsafe(call)
        assert done.wait(60), "the proxy does not answer"

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, sock=self._listener))
        try:
            self._loop.run_forever()
        finally:
            server.close()
            self._reset_all()
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
            self._loop.run_until_complete(asyncio.sleep(0.01))
            self._loop.close()

    def _stop(self) -> None:
        self._loop.stop()

    def _set(self, mode: str, old_only: bool, delay_s: float, share: float) -> None:
        for connection in tuple(self._connections):
            connection.old, connection.hit = True, random.random() < share
            if (mode == "cut" and connection.hit) or (mode == "pass" and (connection.holed or connection.silent)):
                connection.reset()
        self._mode = "pass" if mode == "delay" else mode
        self._old_only, self._delay_s, self._share = old_only, delay_s, share
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _retarget(self, target: tuple[str, int]) -> None:
        self._target = target
        self._reset_all()

    def _reset_all(self) -> None:
        for connection in tuple(self._connections):
            connection.reset()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection([writer.transport], hit=random.random() < self._share)
        self._connections.add(connection)
        try:
            if self._mode == "cut" and connection.hit:
                return
            connection.silent = self._mode == "half_open" and connection.hit
            while connection.silent and self._mode == "half_open":
                await self._changed.wait()
            if connection.silent:
                return
            up_reader, up_writer = await asyncio.open_connection(*self._target)
            connection.transports.append(up_writer.transport)
            pumps = [
                asyncio.ensure_future(self._pump(connection, "up", reader, up_writer)),
                asyncio.ensure_future(self._pump(connection, "down", up_reader, writer)),
            ]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in pumps:
                pump.cancel()
        except OSError:
            pass  # the target is not there: the client sees a reset
        finally:
            self._connections.discard(connection)
            connection.reset()

    async def _pump(
        self, connection: _Connection, direction: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(PIECE):
                while self._held(connection):
                    await self._changed.wait()
                if self._mode == f"drop_{direction}" and connection.hit:
                    connection.holed = True
                    continue
                if self._delay_s and connection.hit:
                    await asyncio.sleep(self._delay_s)
                writer.write(piece)
                await writer.drain()

    def _held(self, connection: _Connection) -> bool:
        if not connection.hit:
            return False
        if self._mode == "half_open":
            return True
        return self._mode == "hold" and (connection.old or not self._old_only)
