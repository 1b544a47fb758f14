"""A token that went from hand to hand ends with whoever is in the middle, at a real door that does not know their name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

import httpx2
import pytest

from certauth.names import Kind
from certauth.tokens import delegate
from certauth.tokens.codec import from_text, to_text
from tests.journeys.kit import Door, context_for, door, mint, until
from tests.signer.agent_kit import identity, make
from tests.signer.kit import DOMAIN, Identity, Site, facility, run_cli

pytestmark = pytest.mark.xdist_group("delegated")

PATH = "/files/a/x"
BOB = f"spiffe://{DOMAIN}/user/bob"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A facility with three people and an administrator."""
    with facility(tmp_path_factory.mktemp("delegated")) as made:
        text = made.settings_file.read_text()
        made.settings_file.write_text(text.replace("admins = []", f'admins = ["spiffe://{DOMAIN}/{Kind.USER}/root"]'))
        for name in ("alice", "bob", "carol", "root"):
            made.enroll(name, "files:read:/a/")
        with made.serving():
            yield made


@pytest.fixture(scope="module")
def files(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A service behind a door of its own, which reads the facility's list of revocations."""
    with door(site, tmp_path_factory.mktemp("door") / "door") as running:
        yield running


def act(site: Site, *words: object) -> None:
    """An administrator's command."""
    run_cli(*words, "--reason", "a test", "--settings", site.settings_file)


def over_http(site: Site) -> None:
    """An administrator revokes Bob over the network."""
    with site.client(site.log_in("root")) as client:
        answer = client.post("/v1/revocations", json={"kind": "principal", "value": BOB, "reason": "a test"})
    assert answer.status_code == 201, answer.text


WAYS: dict[str, Callable[[Site], None]] = {
    "revoke": lambda site: act(site, "user", "revoke", "bob"),
    "http": over_http,
    "disable": lambda site: act(site, "user", "disable", "bob"),
}


def through(first: Identity, middle: Identity, last: Identity, token: str) -> str:
    """The token, handed on by the keys of the first two."""
    to_middle = delegate(from_text(token), holder_key=first.key, to_certificate=middle.chain[0], depth=1)
    return to_text(delegate(to_middle, holder_key=middle.key, to_certificate=last.chain[0]))


def get(site: Site, files: Door, who: Identity, token: str) -> httpx2.Response:
    """One request with somebody's certificate and a token."""
    with files.client(context_for(site, who), token) as client:
        return client.get(PATH)


@pytest.mark.parametrize("how", WAYS)
def test_a_token_ends_with_the_person_in_the_middle(site: Site, files: Door, how: str) -> None:
    """Alice hands to Bob, Bob to Carol; with Bob revoked, Carol is refused, and a token that never was Bob's works on."""
    run_cli("user", "enable", "bob", "--reason", "a test", "--settings", site.settings_file)
    site.clock.offset += timedelta(seconds=2)  # Bob's new certificate is none of those that were revoked
    files.clock.ahead = site.clock.offset
    alice, bob, carol = (site.log_in(name) for name in ("alice", "bob", "carol"))
    own = mint(site, alice, delegations=2)
    handed = through(alice, bob, carol, own)
    straight = to_text(delegate(from_text(own), holder_key=alice.key, to_certificate=carol.chain[0]))
    assert get(site, files, carol, handed).status_code == 200
    WAYS[how](site)
    answer = until(lambda: one if (one := get(site, files, carol, handed)).status_code == 401 else None)
    assert answer.json()["code"] == "token-revoked"
    assert get(site, files, carol, straight).status_code == 200
    assert get(site, files, alice, own).status_code == 200


def test_a_token_ends_with_the_agent_in_the_middle(site: Site, files: Door) -> None:
    """The same for the agent of somebody who is revoked: it is ended, and so is what went through its hands."""
    alice, carol = site.log_in("alice"), site.log_in("carol")
    right = {"service": "files", "operation": "read", "path": "/a/"}
    agent = identity(site, make(site, carol, "mover", rights=[right]))
    last = site.log_in("root")
    handed = through(alice, agent, last, mint(site, alice, delegations=2))
    assert get(site, files, last, handed).status_code == 200
    act(site, "user", "revoke", "carol")
    answer = until(lambda: one if (one := get(site, files, last, handed)).status_code == 401 else None)
    assert answer.json()["code"] == "token-revoked"
