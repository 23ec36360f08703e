"""What stops a row of the table, in words, for a run in which it is not reached."""

from __future__ import annotations

LIMITS = {
    "hot": """a look-up of the facts in a dict, whose hash is made of eleven values, and a comparison of the view's
generation; both are single steps of the interpreter, whose speed is the limit.""",
    "cold": "six keyed hashes, a look-up for each in the sieve of its segment, and the objects that keep them.",
    "seen": """what is left is the copy of the claims, which the caller may change, two readings of each clock,
and `exp`.""",
    "pause": """a thread hands over the interpreter's lock when it waits or after 5 ms; the steps between two waits are
numpy calls over a segment, some of which keep the lock.""",
    "batches": """one event loop. It hashes each name, takes each item out of its message, merges each row into the
view and writes it to two sockets. Client, service and store want three cores, so that with two the service does not
have one to itself; the rate for a core of it stands beside.""",
    "redis": """single calls write 84 B for each op id and request digest into the log, in hexadecimal, and a key of its
own for the op record. Release 0.1.0 reads both, heals by the first and answers retries by the second, and must go on
doing so beside this one. Both are gone after 15 and 13 minutes. The operations of a batch share them.""",
    "script": "the time is the clock's on the wall: a store that is not given a core while a script runs seems slow.",
    "single": """the bare echo does nothing but gRPC. Revoke adds two trips to the store for each round of calls (the
script, and the log that brings the record back, rule H5), whose writes wake the store on a core that is taken from
somebody else, and for each call its share of hashing, checking, the audit line and the receipt.""",
    "propagation": """the service writes to each stream in turn, in one event loop, as the bare server does; with it
come both digest chains, the view, and the acknowledgement itself.""",
    "idle": """the bare server itself takes {bare:.0f} kB a stream and {cores:.2f} cores for 5,000 of them, most of it
gRPC's own; ours adds {extra:.0f} kB: the queue, and a second task that reads pings.""",
}
