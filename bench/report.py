"""The document: a table of targets with what was measured, a section for each row, plots."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field
from pathlib import Path

from bench import machine


@dataclass(frozen=True, slots=True)
class Target:
    """One line of the table of targets. `reached` None: not measured in this run."""

    what: str
    wanted: str
    measured: str
    reached: bool | None
    limit: str = ""
    """What stops it, should it not be reached."""
    path: str = ""
    """Whose profile shows it."""


@dataclass
class Report:
    """Collects what the rows find."""

    docs: Path
    how: str
    draws: bool = True
    store: str = "store unknown"
    targets: list[Target] = field(default_factory=list)
    sections: list[str] = field(default_factory=list)
    profiles: dict[str, str] = field(default_factory=dict)
    """The largest costs, in words, by path."""

    @property
    def quick(self) -> bool:
        return self.how == "quick"

    def target(
        self, what: str, wanted: str, measured: str, reached: bool | None, limit: str = "", path: str = ""
    ) -> None:
        self.targets.append(Target(what, wanted, measured, reached, limit, path))

    def section(self, title: str, text: str) -> None:
        self.sections.append(f"## {title}\n\n{text.strip()}\n")

    def table(self, head: list[str], body: list[list[str]]) -> str:
        """A Markdown table."""
        lines = [head, ["---"] * len(head), *body]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def plot(self, name: str, alt: str) -> tuple[Path, str]:
        """Where a plot goes, and how the document shows it."""
        return self.docs / "performance" / f"{name}.svg", f"![{alt}](performance/{name}.svg)"

    def failed(self, name: str, error: Exception) -> None:
        traceback.print_exception(error)
        self.target(name, "", f"could not be measured: {type(error).__name__}", None)

    def text(self) -> str:
        said = {True: "yes", False: "**no**", None: "-"}
        body = [[one.what, one.wanted, one.measured, said[one.reached]] for one in self.targets]
        return "\n".join([
            "# Performance",
            "",
            "<!-- Made by `make bench`; changes by hand are lost. The words are in bench/rows.py. -->",
            "",
            f"Measured at commit {machine.commit()}, run `{self.how}`. {_HOW}",
            "",
            *(f"- {line}" for line in machine.describe(self.store)),
            f"- processes that wanted a core, averaged over 1, 5 and 15 minutes: {machine.busy()}",
            "",
            self.table(["what", "target", "measured", "reached"], body),
            "",
            *self._missed(),
            *self.sections,
        ])  # fmt: skip

    def _missed(self) -> list[str]:
        missed = [one for one in self.targets if one.reached is False]
        lines = ["## What stops the rows that are not reached", ""] if missed else []
        for one in missed:
            profile = self.profiles.get(one.path, "")
            lines.append(
                f"- **{one.what}**: {' '.join(one.limit.split())}" + (f" Profile: {profile}." if profile else "")
            )
        return [*lines, ""] if missed else []

    def write(self) -> None:
        (self.docs / "performance.md").write_text(self.text())


_HOW = (
    "Client, service, store and what they are compared with share the machine, whatever else runs on it too. So what "
    "is compared takes turns in one run, ratios are made of neighbours, and every number is the median of several "
    "rounds with the smallest and the largest in brackets. Where nothing is waited for it is processor time."
)
