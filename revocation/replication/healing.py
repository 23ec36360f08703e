"""How a replica takes up a history: find out what the store lacks of what it holds, put it back, merge the rest.

Two ways (rule H3). If the replica's own chain shows what was in the store where the history begins, only what lies
beyond is put back: a failover costs the lost suffix. Else the whole state is read, merged both ways, and the replica
goes on from the tail that it noted before it began to read (D8).
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from revocation.limits import SUFFIX_BYTES
from revocation.replication.partition import Applied, Diverged, Partition, Suffix, record_bytes
from revocation.store import LOG_PAGE, Closed, Heads, LogEntry, Registry, Store
from revocation.store.segments import group_of
from revocation_sdk._lattice import CUTOFF, FIRST_CUTOFF_KIND, Group, join_groups, parse_groups, row_size
from revocation_sdk._view import View, rows_missing

_NAMES = 2_000
_PIECE = 64 * 1024
_PIECES = 16
_BATCH_BYTES = 12_000  # of rows in one script: a few hundred entries, about a millisecond
_OPS_AT_ONCE = 250
_REMEMBERED = 20_000

T = TypeVar("T")
Deliver = Callable[[list[Applied]], None]


class Moved(Exception):
    """The history changed under our hands: look again."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do once the store has confirmed us; until then nothing in the replica has changed for the worse."""

    adopt: Callable[[], list[Applied]]
    proposed: int
    learned: int


async def prepare(
    index: int, store: Store, partition: Partition, registry: Registry, reload: bool, deliver: Deliver
) -> Plan:
    """Puts back what the history of `registry` lacks. Raises Moved if the history changes meanwhile.

    Records of the old history that are read on the way go to `deliver`.
    """
    reload = reload and partition.log_id == registry.log_id
    if partition.log_id == registry.log_id and not reload:
        # Struck off in a history that we followed: the store has all that we hold. Come back as a newcomer.
        return Plan(lambda: [], 0, 0)
    if partition.log_id and not reload:
        await _catch_up(index, store, partition, registry, deliver)
        suffix = partition.suffix(registry)
        if suffix is not None:
            return await _put_back_suffix(index, store, partition, registry, suffix)
    return await _merge_all(index, store, partition, registry)


async def _catch_up(index: int, store: Store, partition: Partition, registry: Registry, deliver: Deliver) -> None:
    """Reads on in the old history up to where the new one begins, as far as the log still shows it."""
    while partition.seq < registry.base:
        entries = await store.read_log(index, partition.seq, min(LOG_PAGE, registry.base - partition.seq), 0)
        if not entries:
            return
        try:
            for entry in entries:
                deliver([partition.apply(entry)])
        except Diverged:
            return


async def _put_back_suffix(index: int, store: Store, partition: Partition, registry: Registry, suffix: Suffix) -> Plan:
    proposed = 0
    for realm, rows, ops in _batches((entry.realm, entry.rows, entry.ops) for entry in suffix.lost):
        await _propose(index, store, registry.log_id, realm, rows, ops)
        proposed += 1
    return Plan(lambda: partition.adopt_suffix(registry, suffix), proposed, 0)


async def _merge_all(index: int, store: Store, partition: Partition, registry: Registry) -> Plan:
    heads = await store.heads(index, registry.log_id)
    if isinstance(heads, Closed):
        raise Moved
    learned: dict[str, bytes] = {}
    proposed = 0
    for realm in sorted({*heads.realms, *partition.realms}):
        own = partition.realms[realm].view if realm in partition.realms else None
        stored, missing = await _compare(index, store, registry.log_id, realm, own)
        learned[realm] = missing
        if own is not None:
            lost = (rows_missing(stored, chunk) for chunk in own.chunks())
            proposed += await put_back(index, store, registry.log_id, realm, lost)
    proposed += await _put_back_ops(index, store, registry, partition)
    return Plan(lambda: _adopt(partition, registry.log_id, heads, learned), proposed, sum(map(len, learned.values())))


def _adopt(partition: Partition, log_id: str, heads: Heads, learned: dict[str, bytes]) -> list[Applied]:
    applied = partition.adopt_heads(log_id, heads, learned)
    for realm, rows in learned.items():
        partition.realm(realm).view.merge(rows)
    return applied


async def _compare(index: int, store: Store, log_id: str, realm: str, own: View | None) -> tuple[View, bytes]:
    """What the store holds of a realm, and the part of it that `own` lacks."""
    stored, missing = View(), []
    async for rows in stored_rows(index, store, log_id, realm):
        stored.merge(rows)
        missing.append(rows if own is None else rows_missing(own, rows))
    return stored, b"".join(missing)


async def put_back(index: int, store: Store, log_id: str, realm: str, lost: Iterable[bytes]) -> int:
    """Puts rows that the store lacks into the history `log_id`; returns in how many scripts. Raises Moved."""
    count = 0
    for _, rows, _ in _batches((realm, piece, "") for chunk in lost for piece in _pieces(chunk)):
        await _propose(index, store, log_id, realm, rows, "")
        count += 1
    return count


async def _put_back_ops(index: int, store: Store, registry: Registry, partition: Partition) -> int:
    """The recent op records, so that a retry across the loss still finds its answer; the store takes each once."""
    count = 0
    for realm, ops in partition.ops(_OPS_AT_ONCE):
        await _propose(index, store, registry.log_id, realm, b"", " ".join(ops))
        count += 1
    return count


async def _propose(index: int, store: Store, log_id: str, realm: str, rows: bytes, ops: str) -> None:
    if await store.propose(index, log_id, _clock(rows), realm, rows, ops) is not None:
        raise Moved


def _clock(rows: bytes) -> int:
    """The highest version in `rows`: the store's clock must never draw it again (model 4)."""
    cutoffs = (group.rows for group in parse_groups(rows) if group.kind >= FIRST_CUTOFF_KIND)
    return max((row[2] for packed in cutoffs for row in CUTOFF.iter_unpack(packed)), default=0)


def _pieces(chunk: bytes) -> Iterator[bytes]:
    """Rows in pieces that one script can take."""
    for kind, key_tag, packed in parse_groups(chunk):
        step = _BATCH_BYTES // row_size(kind) * row_size(kind)
        for start in range(0, len(packed), step):
            yield join_groups([Group(kind, key_tag, packed[start : start + step])])


def _batches(records: Iterable[tuple[str, bytes, str]]) -> Iterator[tuple[str, bytes, str]]:
    """(realm, rows, ops) joined as long as the realm is the same and a script can take it."""
    realm, rows, ops = "", b"", ""
    for next_realm, more_rows, more_ops in records:
        if (rows or ops) and (next_realm != realm or len(rows) + len(ops) > _BATCH_BYTES):
            yield realm, rows, ops
            rows, ops = b"", ""
        realm, rows, ops = next_realm, rows + more_rows, f"{ops} {more_ops}".strip()
    if rows or ops:
        yield realm, rows, ops


async def remember(index: int, store: Store, partition: Partition, registry: Registry) -> None:
    """Fills the rings of a freshly loaded partition from the retained log."""
    after, entries, size = max(0, partition.seq - _REMEMBERED), deque[LogEntry](), 0
    while after < partition.seq:
        read = [entry for entry in await store.read_log(index, after, LOG_PAGE, 0) if entry.seq <= partition.seq]
        if not read:
            break
        partition.read_ops(read)
        entries.extend(read)
        size += sum(map(record_bytes, read))
        while size > SUFFIX_BYTES:
            size -= record_bytes(entries.popleft())
        after = read[-1].seq
    partition.remember(entries, registry)


async def stored_rows(index: int, store: Store, log_id: str, realm: str) -> AsyncIterator[bytes]:
    """All rows of a realm as the store has them; any change of history ends it with Moved."""
    start = 0
    while names := _open(await store.segment_names(index, log_id, realm, start, start + _NAMES - 1)):
        for first in range(0, len(names), _PIECES):
            async for rows in _segments(index, store, log_id, realm, names[first : first + _PIECES]):
                yield rows
        start += len(names)


async def _segments(index: int, store: Store, log_id: str, realm: str, names: list[str]) -> AsyncIterator[bytes]:
    offsets = dict.fromkeys(names, 0)
    while offsets:
        wanted = list(offsets.items())
        pieces = _open(await store.segment_rows(index, log_id, realm, wanted, _PIECE))
        for (name, offset), piece in zip(wanted, pieces, strict=True):
            size = 28 if int(name.split("-")[0]) >= 64 else 12
            whole = len(piece) - len(piece) % size
            if whole:
                yield join_groups([group_of(name, piece[:whole])])
                offsets[name] = offset + whole
            if len(piece) < _PIECE:
                del offsets[name]


def _open(reply: T | Closed) -> T:
    if isinstance(reply, Closed):
        raise Moved
    return reply
