"""``certauth login --link``: what it prints, and what it is not combined with."""

from __future__ import annotations

from pathlib import Path

import pytest

from certauth.audit import record
from certauth.names import Principal
from tests.certauth.cli.conftest import BROWSER, Run
from tests.simulator.hostile_signer import HostileSigner


@pytest.fixture
def links(signer: HostileSigner) -> HostileSigner:
    """A signer at which logins can be linked."""
    event = record.EnrolmentChanged(
        action="link", principal=Principal.parse(signer.subject_uri), by=signer.subject_uri, why="w", commitments=()
    )
    said = {"principal": signer.subject_uri, "issuer": f"{signer.url}/idp", "receipt": signer.receipt(event).to_dict()}
    signer.lies["/.well-known/certauth"] = lambda text: text | {"endpoints": text["endpoints"] | {"links": "/v1/links"}}
    signer.lies["/v1/links"] = lambda _: said
    return signer


def test_it_says_whose_the_login_is_now(links: HostileSigner, run: Run):
    """For people and for programs; without an address it is the signer of the last login."""
    done = run("login", "--link", "--browser-command", BROWSER)
    assert done.status == 0, done.err
    assert "campus" in done.text
    assert links.subject_uri in done.text
    answer = run("login", links.url, "--link", "--browser-command", BROWSER, "--json")
    assert answer.data == {
        "domain": "hostile.example",
        "signer": links.url,
        "principal": links.subject_uri,
        "issuer": "campus",
        "linked": True,
    }


def test_without_a_login_there_is_nothing_to_link_to(links: HostileSigner, stranger: Run, run: Run):
    """Exit status 4, and the command."""
    for words, hint in ((("login", links.url), f"certauth login {links.url}"), (("login",), "certauth login https://<your")):
        done = stranger(*words, "--link", "--json")
        assert (done.status, done.error["code"]) == (4, "not-logged-in")
        assert str(done.error["hint"]).startswith(hint)
    assert run("logout").status == 0
    done = run("login", "--link", "--json")
    assert (done.status, done.error["code"], done.error["hint"]) == (4, "not-logged-in", f"certauth login {links.url}")


@pytest.mark.parametrize(
    "words",
    [("--for", "1h"), ("--invite", "FILE"), ("--force",), ("--workload",), ("--code", "FILE"), ("--for", "1h", "--force")],
)
def test_what_makes_no_sense_with_it(links: HostileSigner, run: Run, tmp_path: Path, words: tuple[str, ...]):
    """Said before anything is read or sent."""
    links.seen.clear()
    file = tmp_path / "file"
    file.write_text("of-sixteen-characters-or-more")
    done = run("login", "--link", *(str(file) if word == "FILE" else word for word in words), "--json")
    assert (done.status, done.error["code"]) == (2, "usage"), done.err
    assert words[0] in str(done.error["message"])
    assert links.seen == []
