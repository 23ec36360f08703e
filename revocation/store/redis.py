"""Redis and Valkey through redis-py: keys, scripts, the log as a stream.

Every change is one Lua script in `lua/` on the keys of one partition (one hash tag), so that the state, the numbers
and the log record stand or fall together. redis-py's own retries are off: a lost reply means "unknown", and the
caller's op id settles it.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.exceptions import (
    AuthenticationError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    RedisError,
)

from revocation.store import (
    FORMAT,
    NO_AUDIT,
    NO_WAIT,
    Closed,
    Committed,
    Durability,
    Heads,
    LogEntry,
    Op,
    Registry,
    Standing,
    StoreRefused,
    StoreUnavailable,
    Tail,
)
from revocation.store.answers import PROMPT_S, both, one
from revocation.store.disk import Disk, copies_of, question
from revocation.store.hints import HINTS
from revocation.store.nodes import Nodes, OneNode, client_of
from revocation.store.redis_audit import AUDIT_SCRIPTS, AUDITED_SCRIPTS, RedisAudit, audit_point
from revocation.store.redis_eviction import RedisEviction
from revocation.store.redis_mailbox import RedisMailbox
from revocation.store.redis_sessions import SESSION_SCRIPTS, RedisSessions
from revocation.store.redis_wire import (
    closed_of,
    log_entry,
    op_arguments,
    op_result,
    registry_of,
    standing_arguments,
)
from revocation.store.segments import split_all
from revocation.store.trouble import describe, did_nothing, kind_of

log = structlog.get_logger("revocation.store")

_OWN_SCRIPTS = ("commit", "barrier", "beat", "open", "confirm", "settle", "strike", "propose", "segments")
_SCRIPTS = (*_OWN_SCRIPTS, *SESSION_SCRIPTS, *AUDIT_SCRIPTS)
_PROMPT = ("beat", "barrier")  # their answers are small, and others judge by when they come
_OLDEST = {"redis": (7, 0), "valkey": (8, 0)}
_LOOK_S = 1.0
"""How often Sentinels are asked whether the primary in use is still theirs."""

_LONGEST_WAIT_MS = 1_500  # of a blocked command: well below a socket's time-out, or it would look like a dead server


class RedisStore(RedisSessions, RedisAudit, RedisMailbox, RedisEviction):
    """The store on Redis or Valkey: one server, or several that `nodes` tells apart."""

    def __init__(
        self,
        nodes: Nodes,
        *,
        partitions: int = 1,
        skew_ms: int = 30_000,
        op_retention_ms: int = 600_000,
        longest_log: int = 1_000_000,
        allow_eviction: bool = False,
    ) -> None:
        self.partitions = partitions
        self._nodes = nodes
        self._skew_ms = skew_ms
        self._op_retention_ms = op_retention_ms
        self._longest_log = longest_log
        self._allow_eviction = allow_eviction
        self._disk = Disk.NEVER
        self.on_trouble: Callable[[str], None] | None = None
        """Told the kind of every failed call, a key of `hints.HINTS`."""
        folder = files("revocation.store") / "lua"
        common = (folder / "partition.lua").read_text()
        audited = common + (folder / "audit.lua").read_text()
        self._sources = {
            name: (audited if name in AUDITED_SCRIPTS else common) + (folder / f"{name}.lua").read_text()
            for name in _SCRIPTS
        }
        self._shas: dict[str, str] = {}
        self._looking: asyncio.Task[None] | None = None

    @classmethod
    def from_url(cls, url: str, **options: Any) -> RedisStore:
        """A store on one server, at a redis://, rediss:// or unix:// URL. For all kinds see `connect`."""
        return cls(OneNode(lambda: client_of(url)), **options)

    async def start(self) -> str:
        """Connects and checks that every server is fit (StoreRefused). Returns name and version of the first."""
        try:
            names = [await self._check(client) for client in await self._everyone()]
        except StoreUnavailable as error:
            if isinstance(error.__cause__, AuthenticationError | NoPermissionError):
                raise StoreRefused(
                    "the store refuses this service: check user and password in its URL, and the rights of the user"
                ) from error
            raise
        self._looking = self._looking or asyncio.create_task(self._look_where_it_is(), name="store-primary")
        return names[0]

    async def reconnect(self) -> None:
        """Drops all connections and finds out anew who the primary is."""
        await self._call(self._nodes.forget())

    async def _look_where_it_is(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            with contextlib.suppress(StoreUnavailable):
                if await self._call(self._nodes.moved()):
                    log.warning("store_moved", hint="Sentinel names another primary; the one in use is left")
                    await self.reconnect()

    async def _check(self, client: Redis) -> str:
        name, version = _product(await self._call(client.info("server")))
        if version < _OLDEST[name]:
            oldest = ".".join(map(str, _OLDEST[name]))
            raise StoreRefused(f"the store is {name} {_dotted(version)}; {name} {oldest} or newer is needed")
        await self._refuse_eviction(client)
        self._disk = await self._how_to_fsync(client, name, version)
        await self._load_scripts(client)
        return f"{name} {_dotted(version)}"

    async def _how_to_fsync(self, client: Redis, name: str, version: tuple[int, ...]) -> Disk:
        if not (await self._call(client.info("persistence"))).get("aof_enabled"):
            return Disk.NEVER
        if _has_waitaof(name, version):
            return Disk.WAIT
        setting = await self._call(client.config_get("appendfsync"))
        return Disk.ALWAYS if {"always", b"always"} & set(setting.values()) else Disk.NEVER

    async def _load_scripts(self, client: Redis) -> None:
        for name, source in self._sources.items():
            self._shas[name] = await self._call(client.script_load(source))

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})
        await self._nodes.aclose()

    # -- scripts ------------------------------------------------------------------------------------------------

    async def commit(
        self,
        partition: int,
        who: Standing,
        caller_ms: int,
        ops: Sequence[Op],
        durability: Durability,
        audits: Mapping[str, bytes] = NO_AUDIT,
    ) -> Committed | Closed:
        arguments: list[Any] = [
            *standing_arguments(who),
            caller_ms,
            self._skew_ms,
            self._op_retention_ms,
            self._longest_log,
            max((op.above for op in ops), default=0),
            len(ops),
        ]
        for op in ops:
            arguments += op_arguments(op)
        for audited in audits.items():
            arguments += audited
        reply, copies = await self._durably("commit", partition, arguments, durability)
        if len(reply) == 1:
            return Closed(reply[0].decode())
        points = {realm: audit_point(*point) for realm, *point in zip(*[iter(reply[4])] * 3, strict=True)}
        results = tuple(
            op_result(result, points.get(op.realm.encode())) for op, result in zip(ops, reply[3], strict=True)
        )
        return Committed(int(reply[1]), int(reply[2]), results, copies)

    async def barrier(
        self, partition: int, who: Standing, caller_ms: int, durability: Durability, *, newcomer: bool = False
    ) -> Tail | Closed:
        arguments = [*standing_arguments(who), caller_ms, self._skew_ms, durability.replicas, int(newcomer)]
        reply, copies = await self._durably("barrier", partition, arguments, durability)
        if len(reply) == 1:
            return Closed(reply[0].decode())
        now_ms, seq, clock = map(int, reply[1:])
        return Tail(now_ms, seq, copies, clock)

    async def beat(
        self,
        partition: int,
        who: Standing | None,
        member: str,
        caller_ms: int,
        read: int,
        trim_below: int,
        *,
        applied: int = 0,
    ) -> Registry:
        incarnation = str(who.incarnation) if who else ""
        log_id = who.log_id if who else ""
        reply = await self._run(
            "beat", partition, member, incarnation, log_id, caller_ms, self._skew_ms, read, trim_below, applied
        )
        return registry_of(reply)

    async def open_history(
        self, partition: int, seen: str, log_id: str, settle_ms: int, members: Sequence[str], epoch: int = 0
    ) -> Closed | None:
        reply = await self._run("open", partition, seen, log_id, FORMAT, self.partitions, settle_ms, epoch, *members)
        if reply[0] == b"format":
            raise StoreRefused(
                f"the store is laid out as format {reply[1].decode()} with {reply[2].decode()} partitions; this "
                f"service uses format {FORMAT} with {self.partitions}. Use an empty store, which the replicas fill"
            )
        return closed_of(reply)

    async def confirm(
        self, partition: int, log_id: str, member: str, incarnation: int | None, caller_ms: int, known: Sequence[str],
        *, nonce: str = "",
    ) -> int | Closed:  # fmt: skip
        own = "" if incarnation is None else incarnation
        reply = await self._run("confirm", partition, log_id, member, own, caller_ms, self._skew_ms, nonce, *known)
        return closed_of(reply) or int(reply[1])

    async def settle(self, partition: int, log_id: str, settle_ms: int) -> Closed | None:
        return closed_of(await self._run("settle", partition, log_id, settle_ms))

    async def strike(
        self, partition: int, log_id: str, member: str, mode: str, incarnation: int | None, silent_ms: int,
        *, durability: Durability = NO_WAIT,
    ) -> Closed | None:  # fmt: skip
        own = "" if incarnation is None else incarnation
        arguments = [log_id, member, mode, own, silent_ms]
        return closed_of((await self._durably("strike", partition, arguments, durability))[0])

    async def propose(
        self, partition: int, log_id: str, clock: int, realm: str, rows: bytes, ops: str
    ) -> Closed | None:
        groups = list(split_all(rows))
        flat = [argument for group in groups for argument in group]
        return closed_of(
            await self._run("propose", partition, log_id, clock, self._op_retention_ms, realm, ops, len(groups), *flat)
        )

    async def segment_names(self, partition: int, log_id: str, realm: str, start: int, stop: int) -> list[str] | Closed:
        reply = await self._run("segments", partition, log_id, realm, "names", start, stop)
        return closed_of(reply) or [name.decode() for name in reply[1:]]

    async def segment_rows(
        self, partition: int, log_id: str, realm: str, wanted: Sequence[tuple[str, int]], size: int
    ) -> list[bytes] | Closed:
        flat = [argument for pair in wanted for argument in pair]
        reply = await self._run("segments", partition, log_id, realm, "rows", *flat, size)
        return closed_of(reply) or list(reply[1:])

    async def heads(self, partition: int, log_id: str) -> Heads | Closed:
        reply = await self._run("segments", partition, log_id, "", "tail")
        if closed := closed_of(reply):
            return closed
        pairs = zip(reply[3][::2], (text.decode().split(" ") for text in reply[3][1::2]), strict=True)
        realms = {realm.decode(): (int(seq), digest) for realm, (seq, digest) in pairs}
        return Heads(int(reply[1]), reply[2].decode(), realms)

    # -- plain reads --------------------------------------------------------------------------------------------

    async def read_log(self, partition: int, after: int, count: int, block_ms: int) -> list[LogEntry]:
        # XREAD from a trimmed id skips without an error; the replica's chain check notices.
        key = self._key(partition, "log")
        client = await self._serving(key)
        block = min(block_ms, _LONGEST_WAIT_MS) or None
        reply = await self._call(self._nodes.asked(client, lambda: client.xread({key: f"{after}-0"}, count, block)))
        return [log_entry(record_id, fields) for _, records in reply or () for record_id, fields in records]

    async def agree_on_secret(self, commitments: dict[str, str]) -> tuple[str, ...]:
        key = self._key(0, "secrets")
        client = await self._serving(key)
        for kid, commitment in commitments.items():
            await self._call(client.hsetnx(key, kid, commitment))
            known = await self._call(client.hget(key, kid))
            if known is not None and known.decode() != commitment:
                raise StoreRefused(
                    f"the store was made with another master secret under the key id {kid!r}; give this replica the "
                    "same REVOCATION_SECRET as the others"
                )
        written = await self._call(client.hkeys(key))
        return tuple(sorted({kid.decode() for kid in written} - commitments.keys()))

    async def shared_secret(self, candidate: str) -> str:
        """The master secret that replicas without a configured one share: the first candidate wins."""
        key = self._key(0, "shared_secret")
        client = await self._serving(key)
        await self._call(client.setnx(key, candidate))
        kept: bytes = await self._call(client.get(key))
        return kept.decode()

    # -- plumbing -----------------------------------------------------------------------------------------------

    def _key(self, partition: int, name: str) -> str:
        return f"revocation:{{p{partition}}}:{name}"

    async def _run(self, script: str, partition: int, *arguments: Any) -> list[Any]:
        return (await self._durably(script, partition, list(arguments), Durability()))[0]

    async def _durably(
        self, script: str, partition: int, arguments: list[Any], durability: Durability
    ) -> tuple[list[Any], int]:
        """Runs a script and then waits, on the same connection, for the copies asked for."""
        client = await self._serving(self._key(partition, "meta"))
        try:
            return await self._once(client, script, partition, arguments, durability)
        except NoScriptError:  # the server restarted or was replaced: nothing has run
            await self._load_scripts(client)
            await self._tell_eviction(client)
        except MovedError:  # nor here: another server has the keys
            self._nodes.doubt(client)
            client = await self._serving(self._key(partition, "meta"))
        try:
            return await self._once(client, script, partition, arguments, durability)
        except RedisError as error:
            raise self._unavailable(error) from error

    async def _once(
        self, client: Redis, script: str, partition: int, arguments: list[Any], durability: Durability
    ) -> tuple[list[Any], int]:
        call = ("EVALSHA", self._shas.get(script, "0" * 40), 1, self._key(partition, "meta"), *arguments)
        timeout_ms = min(durability.timeout_ms, _LONGEST_WAIT_MS)
        wait: tuple[Any, ...] = ()
        if durability.replicas:
            wait = ("WAIT", durability.replicas, timeout_ms)
        elif durability.fsync:
            wait = question(self._disk, timeout_ms)
        within_s = PROMPT_S + (timeout_ms / 1000 if wait else 0) if script in _PROMPT else None
        replies = await self._call(
            self._nodes.asked(client, lambda: both(client, call, wait) if wait else one(client, call), within_s)
        )
        for reply in replies:
            if isinstance(reply, NoScriptError | MovedError):
                raise reply
            if isinstance(reply, OutOfMemoryError):
                self._count("memory")
                return [b"memory"], 0  # the first write of a script is refused: nothing has changed
            if isinstance(reply, Exception):
                # If it is the WAIT that failed, the script has run.
                raise self._unavailable(reply, ran=reply is not replies[0]) from reply
        if replies[0][0] == b"demoted":
            self._count("read_only")
            await self.reconnect()
        return replies[0], copies_of(replies[1]) if wait else 0

    async def _serving(self, key: str) -> Redis:
        client: Redis = await self._call(self._nodes.serving(key))
        return client

    async def _everyone(self) -> Sequence[Redis]:
        clients: Sequence[Redis] = await self._call(self._nodes.everyone())
        return clients

    async def _call(self, awaitable: Any) -> Any:
        task = asyncio.current_task()
        cancelled_before = task.cancelling() if task else 0
        try:
            return await awaitable
        # uvloop: RuntimeError for a transport that is closed. redis-py: AttributeError for a connection that was closed
        # while it was being made.
        except (RedisError, OSError, RuntimeError, AttributeError) as error:
            raise self._unavailable(error) from error
        finally:
            # asyncio.wait_for of Python 3.11, which redis-py uses, loses a cancellation now and then.
            if task and task.cancelling() > cancelled_before:
                raise asyncio.CancelledError

    def _unavailable(self, error: Exception, *, ran: bool = False) -> StoreUnavailable:
        if isinstance(error, StoreUnavailable):
            return error
        self._nodes.doubt()
        kind = kind_of(error)
        self._count(kind)
        return StoreUnavailable(
            describe(error), kind=kind, hint=HINTS[kind], did_nothing=not ran and did_nothing(error)
        )

    def _count(self, kind: str) -> None:
        if self.on_trouble is not None:
            self.on_trouble(kind)


def _has_waitaof(name: str, version: tuple[int, ...]) -> bool:
    return name == "valkey" or version >= (7, 2)


def _product(server: dict[str, Any]) -> tuple[str, tuple[int, ...]]:
    name = "valkey" if "valkey_version" in server else "redis"
    return name, tuple(map(int, re.findall(r"\d+", str(server[f"{name}_version"]))[:3]))


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
