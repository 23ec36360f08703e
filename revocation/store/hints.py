"""What an operator can do about a store in trouble: the hint of each kind of trouble, for the log.

Every kind is a value of the metric `revocation_store_errors_total{kind}`. No hint repeats what the driver or the server
said, which may hold addresses, names and values.
"""

from __future__ import annotations

from revocation.store import Closed

HINTS = {
    "unreachable": "nothing answers there: is the store up, and are host and port of --redis-url right?",
    "timeout": "the store does not answer in time: look at its load, SLOWLOG and the network",
    "tls": (
        "the TLS handshake with the store fails: compare rediss:// or redis:// with what it speaks, and ssl_ca_certs, "
        "ssl_certfile and ssl_keyfile of --redis-url and the name in its certificate with what it uses"
    ),
    "credentials": "the store refuses user or password: set those of --redis-url right, which Sentinels do not share",
    "rights": (
        "the user of --redis-url may not do this: ACL SETUSER it ~revocation:* +@read +@write +@connection +@scripting "
        "+info +time +wait +waitaof"
    ),
    "no_primary": (
        "no Sentinel names a primary that can be reached: a failover is under way, or the service name in --redis-url "
        "is wrong; SENTINEL CKQUORUM tells"
    ),
    "read_only": "this node is a replica of the store: --redis-url must lead to the primary, as one with Sentinel does",
    "loading": "the store is loading its data and is waited for; INFO persistence shows how far it is",
    "busy": "a script of somebody else blocks the store: SCRIPT KILL ends it; this service needs a store of its own",
    "moved": "the slots of the cluster have moved, or a part of it is down: CLUSTER INFO and CLUSTER SHARDS tell",
    "memory": (
        "the store is full: raise maxmemory or give it more memory; nothing is evicted, and revocations are refused "
        "until there is room"
    ),
    "eviction": (
        "the store may drop revocations when its memory is full: set `maxmemory-policy noeviction` there, and on every "
        "node that may take over"
    ),
    "disk": "the store cannot write to its disk and refuses changes (MISCONF): free space, then look at its log",
    "replicas": "the store has fewer replicas than min-replicas-to-write demands: bring them back",
    "other": "the store answers with an error that it should not give: look at its log and its version",
}
"""What to do, by kind. Kept in step with docs/guarantees.md by a test."""

FULL = {
    Closed.FULL: (
        "log",
        "the log is full; it empties as it ages and as members catch up",
        "commits are refused until the log has been trimmed: see which member lags (`members list`), or raise "
        "--log-max-entries",
    ),
    Closed.MEMORY: ("store_memory", "the store has no memory left", HINTS["memory"]),
}
"""Why a commit finds no room: the name of the limit, what the caller hears, what the log says to do."""
