"""What is fuzzed: a parser, inputs to begin with, and the oracle that every input must pass."""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

from tests.fuzz.mutation import mutate

CORPUS = Path(__file__).parent / "corpus"
_LEAKS = re.compile(
    r"Traceback|File \"|\.py\b|/(usr|home|tmp|root|opt|work)/|<class|object at 0x|\w+Error\b|Exception\b|0x[0-9a-f]{6}"
)


class Finding(AssertionError):
    """An input that did what no input may do."""


class Target:
    """One parser. `one` takes one input, returns a word for what became of it, and raises Finding."""

    name = ""
    words: Sequence[bytes] | None = None

    def seeds(self) -> Sequence[bytes]:
        """Inputs to begin with."""
        raise NotImplementedError

    def one(self, data: bytes) -> str:
        """Tries one input."""
        raise NotImplementedError

    def make(self, rng: Random, seeds: Sequence[bytes]) -> bytes:
        """A new input."""
        return mutate(rng, rng.choice(seeds), seeds, *([self.words] if self.words else []))

    def close(self) -> None:
        """Gives back what it holds."""

    def starts(self) -> list[bytes]:
        """Seeds and corpus."""
        return [*self.seeds(), *corpus(self.name)]

    def inputs(self, seed: int) -> Iterator[bytes]:
        """Inputs without end, the same for the same seed."""
        starts = self.starts()
        yield from starts
        rng = Random(zlib.crc32(self.name.encode()) ^ seed)
        while True:
            yield self.make(rng, starts)


def corpus(name: str) -> list[bytes]:
    """What is kept for a target: lines of base64, each with a remark behind a #."""
    path = CORPUS / f"{name}.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    return [base64.b64decode(line.partition("#")[0].strip()) for line in lines if line and not line.startswith("#")]


def check_text(text: str, data: bytes = b"") -> None:
    """A message is for people: short, without the insides of a program and without what came in."""
    if _LEAKS.search(text):
        raise Finding(f"a message shows the insides of the program: {text!r}")
    if len(text) > 1000:
        raise Finding(f"a message of {len(text)} characters")
    if any(ord(character) < 32 and character != "\n" for character in text):
        raise Finding(f"a message with control characters: {text!r}")
    long = text.encode("utf-8", "replace")
    if data and any(data[at : at + 24] in long for at in range(0, max(0, len(data) - 24), 8)):
        raise Finding(f"a message repeats what came in: {text!r}")
