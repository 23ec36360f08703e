"""What one realm allows: the limits that make expiry safe, and how its sessions behave.

Values, read from the file that `--realms` names. `max_token_life_s`, `max_leeway_s` and `margin_s` are announced to
every SDK, because a revocation can only be forgotten when no verifier would accept the token any more.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

DAY_S = 86_400
LONGEST_LIFE_S = 400 * DAY_S
"""Nothing lives longer: neither a token nor a session."""

_FILE_BYTES = 4 * 1024 * 1024
REALM_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


def realm_name(name: str) -> str:
    """Returns `name` if it may name a realm. Raises ValueError with the rule otherwise."""
    if not REALM_NAME.fullmatch(name):
        raise ValueError(
            "the name of a realm has 1 to 63 characters of a-z, 0-9, '.', '_', '-' and starts with a-z or 0-9"
        )
    return name


RealmName = Annotated[str, AfterValidator(realm_name)]


class RealmLimits(BaseModel):
    """How much of each replica one realm may use. 0: no limit.

    A limit that is not given depends on who else is there: with one realm there is nobody to be fair to, and none;
    with several, those of `quotas.BETWEEN_REALMS`, and half of the replica's streams.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    calls_per_s: Annotated[int | None, Field(ge=0, le=10_000_000)] = None
    """Calls, of whatever kind; opening a stream is one. With several realms: 2,000."""

    calls_burst: Annotated[int | None, Field(ge=1, le=10_000_000)] = None
    """Calls that may come at once after a quiet time. Default: what two seconds bring."""

    identity_calls_per_s: Annotated[int | None, Field(ge=0, le=10_000_000)] = None
    """Calls of one identity. Default: whatever the realm has."""

    identity_calls_burst: Annotated[int | None, Field(ge=1, le=10_000_000)] = None
    """Default: what two seconds bring."""

    rows_per_s: Annotated[int | None, Field(ge=0, le=10_000_000)] = None
    """Tokens in batches. Two seconds' worth, or one batch, may come at once. With several realms: 100,000."""

    max_in_flight: Annotated[int | None, Field(ge=0, le=1_000_000)] = None
    """Calls that are being answered at the same time. With several realms: 1,000."""

    max_subscribers: Annotated[int | None, Field(ge=1, le=1_000_000)] = None
    """Streams of verifiers. With several realms: half of --max-subscribers."""

    max_snapshots: Annotated[int | None, Field(ge=0, le=10_000)] = None
    """Snapshots that are being sent at the same time. With several realms: 32."""

    catch_up_bytes_per_s: Annotated[int | None, Field(ge=0, le=10**12)] = None
    """What is sent to verifiers that come late; sixteen seconds' worth at once. With several realms: 67,108,864."""

    def filled(self, defaults: RealmLimits) -> RealmLimits:
        """These limits, with `defaults` for those that are not given."""
        given = {name: value for name, value in self.model_dump().items() if value is not None}
        return defaults.model_copy(update=given)


class RealmSettings(BaseModel):
    """Settings of one realm.

    A lowered `max_token_life_s` or `absolute_timeout_s` holds at once, also for tokens and sessions that exist:
    verifiers refuse what lives longer, and nobody refreshes beyond the new end. Timeouts and grace are otherwise fixed
    when a session is opened. Raise a lowered limit again only after the old one has passed: cutoffs made meanwhile are
    remembered for as long as the lower one asks.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    max_token_life_s: Annotated[int, Field(ge=1, le=LONGEST_LIFE_S)] = DAY_S
    """Verifiers refuse tokens whose exp - iat is larger, and revocations beyond it are refused."""

    max_leeway_s: Annotated[int, Field(ge=0, le=3600)] = 60
    """The largest leeway that a verifier of this realm may grant for `exp`."""

    margin_s: Annotated[int, Field(ge=2, le=3600)] = 60
    """How far the clocks of store, service and verifiers may be apart. Entries live longer by it."""

    idle_timeout_s: Annotated[int, Field(ge=0, le=LONGEST_LIFE_S)] = 7 * DAY_S
    """A session that is not refreshed or touched for so long ends. 0: never."""

    absolute_timeout_s: Annotated[int, Field(ge=60, le=LONGEST_LIFE_S)] = 30 * DAY_S
    """A session ends this long after its opening, whatever happens. Lowered, it ends older sessions, too; access tokens
    minted before live on to their `exp`, or until they are revoked."""

    grace_ms: Annotated[int, Field(ge=0, le=300_000)] = 10_000
    """A refresh repeated within it gets the same successor; later it is theft. 0: always theft."""

    max_sessions_per_subject: Annotated[int, Field(ge=0, le=100_000)] = 0
    """0: no limit."""

    max_sessions_per_subject_and_client: Annotated[int, Field(ge=0, le=100_000)] = 0
    """0: no limit."""

    overflow: Literal["deny", "evict_oldest"] = "deny"
    """What a login beyond a limit does: it is refused, or the oldest session ends everywhere."""

    confirm_above: Annotated[int, Field(ge=0, le=1_000_000_000)] = 0
    """Revoking a subject, client, key or realm with more sessions than this needs a confirmation. 0: never."""

    two_person: bool = False
    """Revoking the whole realm needs a second identity that orders the same within ten minutes."""

    limits: RealmLimits = RealmLimits()
    """How much of the service the realm may use."""

    @model_validator(mode="after")
    def _idle_within_absolute(self) -> Self:
        if self.idle_timeout_s > self.absolute_timeout_s:
            raise ValueError(
                f"idle_timeout_s ({self.idle_timeout_s}) is longer than absolute_timeout_s "
                f"({self.absolute_timeout_s}): it could never end a session; lower it, or set 0 for none"
            )
        return self


def read_realms(path: Path) -> object:
    """The content of a realms file (`.toml`, else JSON): one table for each realm, not yet validated.

    Raises ValueError if the file cannot be read or parsed; the message says where.
    """
    path = home_expanded(path)
    try:
        raw = path.read_bytes()[: _FILE_BYTES + 1]
        if len(raw) > _FILE_BYTES:
            raise ValueError(f"larger than {_FILE_BYTES} bytes")
        text = raw.decode()
        return tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    except RecursionError:
        raise ValueError(f"{path} does not parse: too deep") from None
    except ValueError as error:  # malformed TOML, JSON or UTF-8
        raise ValueError(f"{path} does not parse: {error}") from error


def home_expanded(path: Path) -> Path:
    """The path with `~` replaced. Raises ValueError for a home that there is not."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError("begins with the home of a user that is not known here") from None
