"""Trying out a configured provider: what its settings promise is done once, and what fails is named."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from certauth.clock import system_clock
from signer.jwks import Pace
from signer.probe import Finding, Level
from signer.settings import IssuerSettings, Settings
from signer.trial import trial
from tests.signer.test_jwks import made_once
from tests.simulator.hostile_provider import HostileProvider, hostile_provider, jwks
from tests.simulator.node_provider import SIGNER_CLIENT_ID, SIGNER_SECRET, node_provider


@pytest.fixture
def provider() -> Iterator[HostileProvider]:
    """A provider with a code flow."""
    with hostile_provider() as running:
        running.jwks = jwks(made_once("ES256", "a"))
        running.more = {
            "authorization_endpoint": f"{running.issuer}/auth",
            "token_endpoint": f"{running.issuer}/token",
            "introspection_endpoint": f"{running.issuer}/introspect",
        }
        yield running


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """The client's secret."""
    path = tmp_path / "secret"
    path.touch(mode=0o600)
    path.write_text(SIGNER_SECRET)
    return path


def tried(url: str, **members: Any) -> tuple[Finding, ...]:
    """What a trial of an issuer with these settings finds."""
    given = {"id": "lab", "url": url, "client_id": "us", "allow_loopback_http": url.startswith("http:"), **members}
    issuer = IssuerSettings.model_validate(given)
    settings = Settings(trust_domain="a.example", public_url="https://s.example", issuer=(issuer,))
    return asyncio.run(trial(settings, issuer, clock=system_clock, pace=Pace(timeout=60)))


def at(findings: tuple[Finding, ...], level: Level) -> set[str]:
    """The topics found at this level."""
    return {finding.topic for finding in findings if finding.level is level}


def test_all_is_well(provider: HostileProvider, secret: Path) -> None:
    """Keys, code flow, hosts, secret and introspection work."""
    found = tried(provider.issuer, client_secret_file=secret, introspection=True)
    assert at(found, Level.GOOD) == {"keys", "client-secret", "code", "hosts", "introspection"}
    assert len(found) == 5
    assert SIGNER_SECRET not in repr(found)


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        ({"mode": "down"}, {"keys", "discovery"}),
        ({"jwks": b"{}"}, {"keys"}),
        ({"jwks": jwks(made_once("EdDSA", "a"))}, {"algorithms"}),
        ({"more": {}}, {"code"}),
        ({"more": {"authorization_endpoint": "https://x.example/", "token_endpoint": "https://x.example/"}}, {"hosts"}),
    ],
)
def test_what_fails_is_named(provider: HostileProvider, change: dict[str, object], failed: set[str]) -> None:
    """One thing at a time."""
    for name, value in change.items():
        setattr(provider, name, value)
    assert at(tried(provider.issuer), Level.FAILURE) == failed


def test_keys_left_out_are_named(provider: HostileProvider) -> None:
    """Keys that verify nothing, and keys without an id."""
    provider.jwks = jwks(made_once("ES256", "a"), {"kty": "oct", "kid": "mac"}, made_once("RS256", None))
    assert at(tried(provider.issuer), Level.WARNING) == {"ignored-key", "key-ids"}
    assert at(tried(provider.issuer, single_key=True), Level.WARNING) == {"ignored-key"}


def test_a_secret_that_others_can_read(provider: HostileProvider, secret: Path) -> None:
    """It fails for its own reason, and introspection with it."""
    secret.chmod(0o644)
    found = tried(provider.issuer, client_secret_file=secret, introspection=True)
    assert at(found, Level.FAILURE) == {"client-secret", "introspection"}


@pytest.mark.parametrize(("says", "words"), [({"active": True}, "made-up token active"), ({}, "cannot be asked")])
def test_introspection_that_cannot_be_trusted(provider: HostileProvider, secret: Path, says: object, words: str) -> None:
    """A provider that calls everything active, or does not answer the question."""
    provider.says = says
    found = tried(provider.issuer, client_secret_file=secret, introspection=True)
    [failure] = [finding for finding in found if finding.level is Level.FAILURE]
    assert (failure.topic, words in failure.text) == ("introspection", True)


def test_a_device_flow_that_is_not_there(provider: HostileProvider) -> None:
    """``device = true`` promises a device flow with DPoP."""
    assert "device" in at(tried(provider.issuer, device=True), Level.FAILURE)
    provider.more |= {
        "device_authorization_endpoint": f"{provider.issuer}/device",
        "dpop_signing_alg_values_supported": ["ES256"],
    }
    assert "device" in at(tried(provider.issuer, device=True), Level.GOOD)


def test_a_workload_issuer_needs_no_logins(provider: HostileProvider) -> None:
    """Its keys are all that is asked for."""
    provider.more = {}
    found = tried(provider.issuer, kinds=("workload",), bindings=("audience",))
    assert (at(found, Level.GOOD), at(found, Level.FAILURE)) == ({"keys"}, set())


def test_keys_in_a_file(tmp_path: Path) -> None:
    """Nobody is asked; a file that is missing is the finding."""
    file = tmp_path / "keys.json"
    file.write_bytes(jwks(made_once("ES256", "a")))
    found = tried("https://idp.example", jwks_file=file)
    assert (at(found, Level.GOOD), at(found, Level.NOTE)) == ({"keys"}, {"logins"})
    assert str(file) in found[0].text
    file.unlink()
    assert at(tried("https://idp.example", jwks_file=file), Level.FAILURE) == {"file-unreadable"}


def test_a_real_provider(tmp_path: Path, secret: Path) -> None:
    """Everything at once; with another client's secret, introspection is what fails."""
    with node_provider(tmp_path / "op") as op:
        settings: dict[str, Any] = {"ca_file": op.ca_file, "client_secret_file": secret, "introspection": True, "device": True}
        found = tried(op.issuer, client_id=SIGNER_CLIENT_ID, **settings)
        assert at(found, Level.FAILURE) == set()
        assert {"keys", "code", "hosts", "device", "introspection", "client-secret"} == at(found, Level.GOOD)
        found = tried(op.issuer, client_id="somebody-else", **settings)
        assert at(found, Level.FAILURE) == {"introspection"}
