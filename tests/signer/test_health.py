"""What readiness says of an identity provider that is up and yet not as it should be."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from signer import health
from signer.sources import SourceStatus

URL = "https://idp.example"


def shown(**changes: Any) -> tuple[str, str]:
    """State and detail of a provider with this status."""
    known: dict[str, Any] = {"url": URL, "state": "fresh", "keys": 2, "age": 1.0, "failure": None, "next_fetch_in": 0.0}
    status = SourceStatus(**known | {"ignored": ()} | changes)
    service = SimpleNamespace(
        settings=SimpleNamespace(issuer=[SimpleNamespace(url=URL, id="idp")]),
        key_source=SimpleNamespace(status=lambda: (status,)),
    )
    [part] = health._issuers(cast("Any", service))
    assert part.name == "issuer:idp"
    return part.state, part.detail


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("ok", "2 keys, fresh")),
        ({"state": "stale", "failure": "it answered 503"}, ("ok", "2 keys, stale, it answered 503")),
        ({"state": "none", "keys": 0}, ("degraded", "0 keys, none")),
        ({"ignored": ("'x': it is not for signatures",)}, ("ok", "2 keys, fresh")),
    ],
)
def test_a_provider_as_it_is(changes: dict[str, Any], expected: tuple[str, str]) -> None:
    """Old keys that still serve, and keys for something else, are nobody's concern."""
    assert shown(**changes) == expected


def test_endpoints_that_moved_are_an_alarm() -> None:
    """Whoever can change the discovery document can send logins elsewhere: a person has to look."""
    state, detail = shown(moved=("token_endpoint", "jwks_uri"))
    assert (state, detail) == ("degraded", "2 keys, fresh, moved since the start: token_endpoint, jwks_uri")


def test_a_published_private_key_is_an_alarm() -> None:
    """It verifies nothing here, and its provider has to be told."""
    state, detail = shown(ignored=("'a': ALARM: it is published with its secret members d",))
    assert state == "degraded"
    assert "ALARM: it is published with its secret members d" in detail
