"""The settings in the pages about identity providers are settings that the signer takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from signer.settings import parse

HOW_TO = Path(__file__).resolve().parents[2] / "docs" / "how-to"
PAGES = [HOW_TO / "connect-an-identity-provider.md", *sorted((HOW_TO / "providers").glob("*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL))
]
FACILITY = 'trust_domain = "als.example"\npublic_url = "https://signer.als.example:8443"\n'


def test_there_are_such_pages() -> None:
    """The list is not empty by accident, and each page has settings to copy."""
    assert {page.stem for page in PAGES} >= {"keycloak", "cilogon", "globus", "entra", "github-actions", "kubernetes"}
    assert all("```toml" in page.read_text() for page in PAGES)


@pytest.mark.parametrize("block", BLOCKS)
def test_the_settings_can_be_copied(block: str) -> None:
    """Issuer and rules are read and checked as the signer does at its start."""
    settings = parse(FACILITY + block, Path("/etc/signer/signer.toml"), {})
    assert len(settings.issuer) == 1
    assert settings.issuer[0].issuer().url == settings.issuer[0].url


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.stem)
def test_a_page_says_whether_it_was_tried(page: Path) -> None:
    """Nobody must believe that a provider was tried that was not."""
    text = page.read_text()
    assert ("Not run here" in text) != ("Tried with" in text)
