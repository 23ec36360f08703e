"""Bytes made worse: random mutation, with what is known to hurt parsers thrown in. Deterministic for a given Random."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

LONGEST = 64 * 1024

NASTY = tuple(
    text.encode("utf-8", "surrogatepass")
    for text in (
        *(
            "\0",
            "\n",
            "\r\n",
            "\x1b[2J",
            "\u202e",
            "\ufeff",
            "\ud800",
            "\udfff",
            "é",
            "e\u0301",
            "\U0001f600",
            " ",
            "=",
        ),
        *('"', "'", "\\", "\\u0000", "\\ud800", "{", "}", "[", "]", ":", ",", "null", "true", "{}", "[]", '""'),
        *("0", "-0", "-1", "1e400", "-1e400", "NaN", "Infinity", "1.5", "1e-9", "9" * 40, "9" * 5000, "1" + "0" * 300),
        *("253402300799", "253402300800", "4294967295", "4294967296", "9223372036854775807", "18446744073709551616"),
        *("../../etc/passwd", "' OR 1=1 --", "%00", "%s%n", "${jndi:x}", "<script>", "$(id)", ";", "|", "*", ".", ".."),
        *(
            "none",
            "None",
            "HS256",
            "ES256",
            "RS256",
            "es256",
            "EdDSA",
            "crit",
            "b64",
            "zip",
            "DEF",
            "jwk",
            "jku",
            "x5c",
        ),
        *("alg", "kid", "typ", "exp", "iat", "nbf", "iss", "sub", "aud", "jti", "sid", "tver", "client_id", "azp"),
        *("[" * 2000, '{"a":' * 2000, "a" * 300, "A" * 4096, "\\" * 100, '"a":1,' * 50),
    )
)
NUMBERS = (0, 1, 2, 7, 8, 9, 31, 32, 63, 64, 65, 66, 67, 127, 128, 129, 254, 255)


def mutate(rng: Random, data: bytes, others: Sequence[bytes] = (), words: Sequence[bytes] = NASTY) -> bytes:
    """`data` after one to eight random changes; `others` are inputs to splice with."""
    found = bytearray(data)
    for _ in range(1 << rng.randrange(4)):
        rng.choice(_STEPS)(rng, found, others, words)
    return bytes(found[:LONGEST])


def _flip(rng: Random, data: bytearray, _: Sequence[bytes], __: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _set(rng: Random, data: bytearray, _: Sequence[bytes], __: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.choice(NUMBERS)


def _insert(rng: Random, data: bytearray, _: Sequence[bytes], words: Sequence[bytes]) -> None:
    at = rng.randint(0, len(data))
    data[at:at] = rng.choice(words)


def _replace(rng: Random, data: bytearray, _: Sequence[bytes], words: Sequence[bytes]) -> None:
    at = rng.randint(0, len(data))
    word = rng.choice(words)
    data[at : at + rng.choice((1, 2, len(word), 16))] = word


def _cut(rng: Random, data: bytearray, _: Sequence[bytes], __: Sequence[bytes]) -> None:
    at = rng.randint(0, len(data))
    del data[at : at + rng.choice((1, 2, 4, 8, 64, len(data)))]


def _repeat(rng: Random, data: bytearray, _: Sequence[bytes], __: Sequence[bytes]) -> None:
    at = rng.randint(0, len(data))
    piece = data[at : at + rng.choice((1, 4, 16, 64))]
    data[at:at] = piece * rng.choice((1, 2, 8))


def _splice(rng: Random, data: bytearray, others: Sequence[bytes], _: Sequence[bytes]) -> None:
    if others:
        other = rng.choice(others)
        at, of = rng.randint(0, len(data)), rng.randint(0, len(other))
        data[at:] = other[of:]


_STEPS: tuple[Callable[[Random, bytearray, Sequence[bytes], Sequence[bytes]], None], ...] = (
    _flip,
    _flip,
    _set,
    _insert,
    _insert,
    _replace,
    _replace,
    _cut,
    _repeat,
    _splice,
)
