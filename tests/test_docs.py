"""The documentation is true as far as a machine can tell: generated pages are fresh, links lead somewhere."""

from __future__ import annotations

import re
import runpy
import tomllib
from pathlib import Path

import pytest

from revocation import __version__

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("model/*.md"), *ROOT.glob("helm/**/*.md")])
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+\s+(.*)$", re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The fragments that GitHub gives the headings of a page."""
    plain = (re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in _HEADING.findall(page.read_text()))
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_within_the_repository_leads_somewhere(page: Path) -> None:
    for link in _LINK.findall(page.read_text()):
        if "://" in link or link.startswith("mailto:"):
            continue
        path, _, fragment = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        assert not fragment or target.suffix != ".md" or fragment in anchors(target), f"{page.name}: {link}"


def test_pages_that_come_from_the_code_are_fresh() -> None:
    pages = runpy.run_path(str(ROOT / "docs" / "generate.py"))["pages"]()
    for path, text in pages.items():
        assert path.read_text() == text, f"{path.name} is old; `make docs` writes it"


def test_the_chart_is_installed_with_the_image_of_this_version() -> None:
    page = (ROOT / "helm/revocation/README.md").read_text()
    assert set(re.findall(r"(?:/revocation:|image\.tag=)([\w.]+)", page)) == {__version__}


def test_every_extra_is_in_the_instructions() -> None:
    """And nobody is told to get the package from an index, where it is not."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"].keys()
    page = (ROOT / "docs/install.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \| ", page.partition("| extra |")[2], re.MULTILINE)) >= extras - {
        "dev",
        "bench",
    }
    for path in [*PAGES, ROOT / "helm/revocation/templates/NOTES.txt"]:
        assert not re.search(r"pip install ['\"]?revocation", path.read_text()), path.name
