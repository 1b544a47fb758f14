"""Withdrawing a part of a token that something wider has withdrawn already: recorded, said, and not in the feed twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from certauth.tokens import Narrowing, attenuate, block_ids
from certauth.tokens.codec import from_text, to_text
from signer.service import Service
from tests.signer.agent_kit import mint
from tests.signer.kit import DOMAIN, Identity, Site, facility


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A facility with a person and an administrator."""
    with facility(tmp_path) as made:
        admins = f'admins = ["spiffe://{DOMAIN}/user/root"]'
        made.settings_file.write_text(made.settings_file.read_text().replace("admins = []", admins))
        made.enroll("alice", "files:read:/a/")
        made.enroll("root")
        yield made


@pytest.fixture
def service(site: Site) -> Iterator[Service]:
    """The running service."""
    with site.serving() as running:
        yield running


def narrowed(token: str, path: str) -> str:
    """A narrower token."""
    return to_text(attenuate(from_text(token), Narrowing(paths=(path,))))


def last(token: str) -> str:
    """The id of its newest part."""
    return block_ids(from_text(token))[-1]


def revoke(site: Site, who: Identity, kind: str, value: str, **more: Any) -> dict[str, Any]:
    """Withdraw something; the answer."""
    with site.client(who) as client:
        answer = client.post("/v1/revocations", json={"kind": kind, "value": value, "reason": "r"} | more)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def feed(service: Service) -> list[str]:
    """What is withdrawn."""
    return [stored.row.revoked.value for stored in service.store.revocations(now=0)]


def test_a_part_of_a_withdrawn_token(site: Site, service: Service) -> None:
    """With the whole token withdrawn, a part of it gets an entry in the log and a receipt, and none in the feed."""
    alice = site.log_in("alice")
    whole = mint(site, alice).json()
    part = narrowed(whole["token"], "/a/b/")
    revoke(site, alice, "jti", whole["jti"])
    size = service.ledger.status().size
    said = revoke(site, alice, "block", last(part), token=part)
    assert said["covered_by"] == {"kind": "jti", "value": whole["jti"]}
    assert "receipt" in said
    assert feed(service) == [whole["jti"]]
    assert service.ledger.status().size == size + 1
    assert revoke(site, alice, "block", last(part), token=part)["covered_by"] == said["covered_by"]
    with site.client(alice) as client:
        form = {"token": narrowed(whole["token"], "/a/c/"), "client_id": f"spiffe://{DOMAIN}/user/alice"}
        assert client.post("/revoke", data=form).status_code == 200
    assert feed(service) == [whole["jti"]]


def test_a_part_of_a_withdrawn_part(site: Site, service: Service) -> None:
    """What was made from a part ends with it; what it was made from does not."""
    alice = site.log_in("alice")
    token = mint(site, alice).json()["token"]
    outer = narrowed(token, "/a/b/")
    inner = narrowed(outer, "/a/b/c")
    assert "covered_by" not in revoke(site, alice, "block", last(outer), token=outer)
    assert revoke(site, alice, "block", last(inner), token=inner)["covered_by"] == {"kind": "block", "value": last(outer)}
    assert feed(service) == [last(outer)]
    sibling = narrowed(token, "/a/d/")
    assert "covered_by" not in revoke(site, alice, "block", last(sibling), token=sibling)
    assert feed(service) == [last(outer), last(sibling)]


def test_a_token_that_says_nothing_of_the_part_covers_nothing(site: Site, service: Service) -> None:
    """An administrator may name any part; a withdrawn token shown beside it must not make the withdrawal an empty one."""
    alice, root = site.log_in("alice"), site.log_in("root")
    dead, living = mint(site, alice).json(), mint(site, alice).json()
    revoke(site, alice, "jti", dead["jti"])
    part = last(narrowed(living["token"], "/a/b/"))
    assert "covered_by" not in revoke(site, root, "block", part, token=dead["token"])
    assert feed(service) == [dead["jti"], part]
