"""The URL of the store, completed with what must not stand on a command line: names and passwords from files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode, urlsplit


def read_password(path: Path) -> str:
    """The password that a file holds. Raises ValueError if there is none; the message names the file only."""
    try:
        # Editors end a file with a line end, which is no part of a password.
        password = path.read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError):
        raise ValueError(f"cannot read {path} as text") from None
    if not password:
        raise ValueError(f"{path} is empty; write the password into it, or leave the setting out")
    return password


def has_credentials(url: str) -> bool:
    """Whether the URL itself names a user or a password."""
    return "@" in urlsplit(url).netloc


def is_encrypted(url: str) -> bool:
    """Whether the URL asks for TLS."""
    return url.startswith("rediss")


def complete(url: str, username: str | None, password: str | None, options: Mapping[str, str]) -> str:
    """`url` with credentials and further query options. The result is secret.

    Options that the URL has already win: whoever writes them there means them.
    """
    parts = urlsplit(url)
    query = dict(options) | dict(parse_qsl(parts.query, keep_blank_values=True))
    place = parts.netloc
    if username is not None or password is not None:
        user = quote(username or "", safe="")
        place = f"{user}:{quote(password or '', safe='')}@{place.rpartition('@')[2]}"
    # Not urlunsplit, which drops an empty host: unix:///path.
    tail = f"?{urlencode(query, quote_via=quote, safe='/')}" if query else ""
    return f"{parts.scheme}://{place}{parts.path}{tail}"
