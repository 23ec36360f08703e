"""Protobuf messages filled with what hurts."""

from __future__ import annotations

import time
from random import Random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from revocation_sdk._requests import make_op_id

STRINGS = (
    "",
    "x",
    "default",
    "nowhere",
    "alice",
    "\0",
    "a\0b",
    "é" * 129,
    "x" * 256,
    "x" * 257,
    "x" * 4000,
    "../../etc/passwd",
    "' OR 1=1 --",
    "\n",
    "\x1b[31m",
    "\u202e",
    "e\u0301",
    "\U0001f600" * 64,
    "00000000-0000-0000-0000-000000000000",
    "*",
    "{}",
    "%s",
    "s100.AAAAAAAAAAAAAAAAAAAAAA",
    "s1ff.AAAAAAAAAAAAAAAAAAAAAA",
    "a" * 43,
    "kid:x",
    "jkt:x",
    "-",
    "\uffff",
)
INTEGERS = (
    0,
    1,
    -1,
    2,
    7,
    60,
    255,
    256,
    65_535,
    65_536,
    2**31 - 1,
    -(2**31),
    2**32 - 1,
    2**32,
    2**53,
    2**63 - 1,
    -(2**63),
    2**64 - 1,
)
BYTES = (b"", b"\0", b"x" * 16, b"L" * 16, b"x" * 20, b"x" * 21, b"x" * 32, b"\xff" * 100, b"x" * 5000)
_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


def a_message(rng: Random, kind: Any, depth: int = 4) -> Any:
    """A message of this kind; most fields are absent or plausible, some are absurd."""
    message = kind()
    for field in message.DESCRIPTOR.fields:
        if rng.random() < 0.35:
            continue
        if _repeated(field):
            values = [_value(rng, field, message, depth) for _ in range(rng.choice((0, 1, 1, 2, 3, 40)))]
            _extend(getattr(message, field.name), [value for value in values if value is not None])
        elif field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
            if depth:
                getattr(message, field.name).CopyFrom(_value(rng, field, message, depth))
        else:
            setattr(message, field.name, _value(rng, field, message, depth))
    return message


def _repeated(field: FieldDescriptor) -> bool:
    old: Any = field  # older runtimes have a label instead
    return bool(old.is_repeated) if hasattr(field, "is_repeated") else bool(old.label == old.LABEL_REPEATED)


def _extend(where: Any, values: list[Any]) -> None:
    if hasattr(where, "extend"):
        where.extend(values)


def _value(rng: Random, field: FieldDescriptor, within: Message, depth: int) -> Any:
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_MESSAGE:
        if field.message_type is None or not depth:
            return None
        return a_message(rng, GetMessageClass(field.message_type), depth - 1)
    if kind == FieldDescriptor.CPPTYPE_STRING:
        if field.type == FieldDescriptor.TYPE_BYTES:
            return rng.choice(BYTES)
        return _text(rng, field.name)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return rng.random() < 0.5
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return rng.choice((0, 1, 2, 3, 64, 66, 99, 2**31 - 1, -1))
    if kind in _RANGES:
        low, high = _RANGES[kind]
        number = int(time.time()) + rng.choice((-100, 60, 3600)) if "_at" in field.name else rng.choice(INTEGERS)
        return number if low <= number <= high and rng.random() < 0.8 else rng.choice((low, high, 0))
    return rng.choice((0.0, -1.0, float("inf"), float("nan"), 1e308))


def _text(rng: Random, name: str) -> str:
    if name == "realm" and rng.random() < 0.9:
        return "default"
    if name == "op_id" and rng.random() < 0.8:
        return make_op_id(time.time() + rng.choice((0, 0, 0, 0, -700, 3600)))
    return rng.choice(STRINGS)
