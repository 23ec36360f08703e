"""Every limit of the interface, in one place. Outside it: INVALID_ARGUMENT, naming the field, and nothing changed."""

from __future__ import annotations

ID_BYTES = 256
"""jti, sid, subject, client_id, kid: UTF-8 bytes, at least 1."""

ISSUER_BYTES = 512
REASON_BYTES = 256
LABEL_BYTES = 128
"""Names that are shown: device label, address, SDK version."""

USER_AGENT_BYTES = 256
"""The one that is cut and not refused: browsers make it as they like."""

THUMBPRINT_CHARACTERS = 43
"""base64url of a SHA-256 digest, unpadded (RFC 7638)."""

BATCH_ITEMS = 10_000
"""Tokens in one BatchRevokeTokens."""

MESSAGE_BYTES = 4 * 1024 * 1024
"""Of a request; gRPC's own default, said explicitly."""

METADATA_BYTES = 16 * 1024

CHANGES_BYTES = 256 * 1024
"""Of one Changes message; a record never exceeds one script's rows."""

QUEUE_BYTES = 4 * 1024 * 1024
"""What may wait for one subscriber before its stream ends with RESYNC."""

SUFFIX_BYTES = 32 * 1024 * 1024
"""Of the last records of a partition, which a replica puts back after a failover; in a larger loss it compares all."""

OPS_BYTES = 64 * 1024 * 1024
"""Of op records of a partition, which a replica puts back into a store that lost them; beyond, the oldest are not."""

SNAPSHOTS_AT_ONCE = 64
"""Snapshots that are being sent at the same time; the next one is told when to come back."""

SNAPSHOT_PATIENCE_S = 10.0
"""How long a peer may take to read one message of a snapshot: whoever reads none must not hold a place for ever."""

FAREWELL_S = 1.0
"""How long the last word of a call may wait for a peer that does not read."""

AUDIT_FOLLOWERS = 64
"""Streams of the audit at the same time; realms share them."""

HELLO_TIMEOUT_S = 10.0
SILENCE_S = 120.0
"""A subscriber that has not pinged for so long is gone."""

CALL_TIMEOUT_S = 10.0
"""For a caller that gives no deadline."""

LONGEST_CALL_S = 60.0

COUNT_S = 20.0
"""How long a dry run counts, where its caller waits for so long; then it is "at least"."""

GUARD_COUNT_S = 3.0
"""How long the guard of a revocation counts, which is itself waited for."""

APPROVAL_S = 600
"""How long what one person has asked for waits for another."""

FUTURE_OP_ID_MS = 60_000
"""How far ahead of the service's clock the time in an op id may be."""

SUBSCRIBERS_PAGE = 1_000
"""Subscribers in one page; 100 where nothing is asked for."""

LIST_TIMEOUT_MS = 2_000
"""How long a replica may take to tell of its subscribers before it counts as silent."""

AWAIT_TIMEOUT_MS = 10_000
"""For AwaitApplied without a timeout; the longest is that of a call."""
