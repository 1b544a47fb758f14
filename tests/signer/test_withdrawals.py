"""What is withdrawn counts at the service's own door, whether or not a list of it can be published."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog.testing

from certauth import keys, revocation
from certauth.errors import UnavailableError
from certauth.keys import Algorithm
from signer import withdrawals
from signer.health import readiness
from signer.service import Service
from tests.signer.kit import DOMAIN, Identity, Site, facility

ALICE = f"spiffe://{DOMAIN}/user/alice"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A facility with a person."""
    with facility(tmp_path) as made:
        made.enroll("alice", "files:read:/a/")
        yield made


@pytest.fixture
def service(site: Site) -> Iterator[Service]:
    """The running service."""
    with site.serving() as running:
        yield running


def withdraw(site: Site, holder: Identity) -> None:
    """Somebody withdraws their own certificate."""
    with site.client(holder) as client:
        answer = client.post("/v1/revocations", json={"kind": "certificate", "value": holder.fingerprint, "reason": "lost"})
    assert answer.status_code == 201, answer.text


def code_of(site: Site, holder: Identity) -> Any:
    """What somebody's request for a token comes to."""
    with site.client(holder) as client:
        answer = client.post("/v1/tokens", json={"audience": "files"})
    return answer.status_code if answer.status_code == 201 else answer.json()["code"]


def part(service: Service) -> tuple[str, str]:
    """What readiness says about the list."""
    return next((one.state, one.detail) for one in readiness(service).parts if one.name == "revocations")


def test_a_list_too_long_to_be_published_stops_nothing_here(
    site: Site, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other doors are told that there is no list, our own goes on refusing what was withdrawn and serving everybody else."""
    people = [site.log_in("alice") for _ in range(4)]
    assert part(service) == ("ok", "0 of 50000 entries")
    monkeypatch.setattr(revocation, "MAX_ENTRIES", 2)
    with structlog.testing.capture_logs() as said:
        for holder in people[:3]:
            withdraw(site, holder)
        assert [code_of(site, holder) for holder in people] == [*["certificate-revoked"] * 3, 201]
        with site.client() as client:
            feed = client.get("/v1/revocations")
            ready = client.get("/readyz")
    assert (feed.status_code, feed.json()["code"]) == (503, "feed-too-large")
    assert (ready.status_code, ready.json()["parts"]["revocations"]["state"]) == (200, "degraded")
    assert "feed-too-large" in part(service)[1]
    assert "feed.not-published" in {one["event"] for one in said}
    # The control: with room, what was withdrawn meanwhile is in the list.
    monkeypatch.undo()
    service.withdrawals.changed()
    assert service.withdrawals.feed()


def test_a_key_that_cannot_sign_stops_nothing_here(site: Site, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for a list that cannot be signed."""
    alice, other = site.log_in("alice"), site.log_in("alice")
    monkeypatch.setattr(service.withdrawals, "_key", keys.generate(Algorithm.P256))
    withdraw(site, alice)
    assert [code_of(site, one) for one in (alice, other)] == ["certificate-revoked", 201]
    with pytest.raises(UnavailableError) as caught:
        service.withdrawals.feed()
    assert caught.value.code == "feed-key"
    assert part(service)[0] == "degraded"


def test_it_is_said_long_before_the_list_is_full(site: Site, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """By number of entries or by bytes: readiness is degraded, and the log has a warning."""
    holder, further = site.log_in("alice"), site.log_in("alice")
    monkeypatch.setattr(withdrawals, "MAX_ENTRIES", 3)
    withdraw(site, holder)
    assert part(service)[0] == "ok"
    with structlog.testing.capture_logs() as said:
        withdraw(site, further)
        assert part(service)[0] == "degraded"
    assert "feed.nearly-full" in {one["event"] for one in said}
    assert service.withdrawals.feed()
    monkeypatch.undo()
    assert part(service)[0] == "ok"
    monkeypatch.setattr(withdrawals, "MAX_FEED", len(service.withdrawals.feed()))
    assert part(service)[0] == "degraded"


def test_a_table_that_cannot_be_read_is_failed(site: Site, service: Service) -> None:
    """Nobody is let in on the strength of an old list."""
    alice = site.log_in("alice")
    database = site.settings.database_path
    database.rename(database.with_name("moved.db"))
    service.withdrawals.changed()
    assert part(service)[0] == "failed"
    assert code_of(site, alice) != 201
