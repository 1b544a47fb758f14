"""Looking at a provider before it is used: what it can, what is careless, and settings that then work."""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from certauth.errors import ConfigError
from signer.probe import Level, Report, probe
from signer.settings import IssuerSettings
from signer.sources import IssuerSource, Pace
from tests.signer.test_jwks import made_once, server_context
from tests.simulator.certificates import write_server_files
from tests.simulator.hostile_provider import HostileProvider, Mode, hostile_provider, jwks
from tests.simulator.mock_provider import mock_provider
from tests.simulator.node_provider import node_provider
from tests.simulator.openid_provider import running_provider


@pytest.fixture
def provider() -> Iterator[HostileProvider]:
    """A provider with everything a login needs."""
    with hostile_provider() as running:
        running.jwks = jwks(made_once("ES256", "a"))
        running.more = {
            "authorization_endpoint": f"{running.issuer}/auth",
            "token_endpoint": f"{running.issuer}/token",
            "response_types_supported": ["code"],
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": True,
            "token_endpoint_auth_methods_supported": ["none"],
            "id_token_signing_alg_values_supported": ["ES256", "RS256"],
        }
        yield running


def look(provider: HostileProvider, **settings: Any) -> Report:
    """What is found out about a provider."""
    source = IssuerSource(url=provider.issuer, allow_loopback_http=True, **settings)
    pace = Pace(timeout=1.5 if provider.mode in {"silent", "drip"} else 60)
    return asyncio.run(probe(source, issuer_id="campus", client_id="us", pace=pace))


def topics(report: Report, level: Level) -> set[str]:
    """What was found at this level."""
    return {finding.topic for finding in report.findings if finding.level is level}


def settings_of(report: Report) -> IssuerSettings:
    """The printed table, read as the signer reads it."""
    if report.table is None:
        raise AssertionError(report)
    [table] = tomllib.loads(report.table.toml())["issuer"]
    return IssuerSettings.model_validate(table)


def test_a_good_provider_gives_settings_that_are_good(provider: HostileProvider) -> None:
    """No warning, and a table with exactly what is needed: the algorithms its keys are for, nothing loosened."""
    report = look(provider)
    assert report.usable
    assert topics(report, Level.WARNING) == set()
    assert {"discovery", "code", "pkce", "rfc9207", "public-clients", "keys"} <= topics(report, Level.GOOD)
    assert {"device", "dpop", "introspection"} <= topics(report, Level.NOTE)
    settings = settings_of(report)
    assert (settings.id, settings.url, settings.client_id) == ("campus", provider.issuer, "us")
    assert (settings.algorithms, settings.allowed_hosts) == (("ES256",), ())
    assert settings.scopes == ("openid", "profile", "email")
    assert not settings.single_key
    assert provider.fetches == {"discovery": 2, "jwks": 1}


def test_what_it_can_do_more_is_noted(provider: HostileProvider) -> None:
    """Device flow, DPoP, introspection, levels of login, claims; scopes are those it has."""
    provider.more |= {
        "device_authorization_endpoint": f"{provider.issuer}/device",
        "dpop_signing_alg_values_supported": ["ES256"],
        "introspection_endpoint": f"{provider.issuer}/introspect",
        "acr_values_supported": ["https://refeds.org/profile/mfa"],
        "claims_supported": ["sub", "groups"],
        "scopes_supported": ["openid", "email", "groups"],
    }
    report = look(provider)
    assert {"device", "dpop", "introspection"} <= topics(report, Level.GOOD)
    texts = [finding.text for finding in report.findings]
    assert "levels of login (acr): https://refeds.org/profile/mfa" in texts
    assert "claims: groups, sub" in texts
    assert settings_of(report).scopes == ("openid", "email")


@pytest.mark.parametrize(
    ("more", "topic", "level"),
    [
        ({"code_challenge_methods_supported": ...}, "pkce", Level.WARNING),
        ({"code_challenge_methods_supported": ["plain"]}, "pkce", Level.WARNING),
        ({"authorization_response_iss_parameter_supported": False}, "rfc9207", Level.NOTE),
        ({"token_endpoint_auth_methods_supported": ["client_secret_basic"]}, "public-clients", Level.NOTE),
        ({"id_token_signing_alg_values_supported": ["none", "ES256"]}, "alg-none", Level.WARNING),
        ({"authorization_endpoint": "http://insecure.example/auth"}, "endpoints", Level.WARNING),
        ({"response_types_supported": ["id_token"]}, "code", Level.NOTE),
        ({"device_authorization_endpoint": "https://idp.example/device"}, "device", Level.NOTE),
    ],
)
def test_carelessness_is_named(provider: HostileProvider, more: dict[str, object], topic: str, level: Level) -> None:
    """Each in its own words, and none stops the provider from being used."""
    provider.more |= more
    report = look(provider)
    assert topic in topics(report, level)
    assert report.usable


def test_an_issuer_that_follows_the_host_header(provider: HostileProvider) -> None:
    """Asked under a made-up name, it calls itself that."""
    assert "host-header" not in topics(look(provider), Level.WARNING)
    provider.follows_host = True
    assert "host-header" in topics(look(provider), Level.WARNING)
    assert "certauth-check.invalid" in [seen["host"] for seen in provider.seen]


def test_keys_that_cannot_be_used_are_named(provider: HostileProvider) -> None:
    """Each with the reason; one published with its secret is an alarm; keys without an id need a decision."""
    leaked = {**made_once("ES256", "b").jwk, "d": "secret"}
    nameless = made_once("ES256", None).jwk
    provider.jwks = jwks(made_once("ES256", "a"), {"kty": "oct", "kid": "mac"}, leaked, nameless)
    report = look(provider)
    assert {"ignored-key", "key-ids"} <= topics(report, Level.WARNING)
    alarms = [finding.text for finding in report.findings if "ALARM" in finding.text]
    assert len(alarms) == 1
    assert "secret members d" in alarms[0]
    provider.jwks = jwks(nameless)
    assert "without an id" in next(each.text for each in look(provider).findings if each.topic == "keys")


@pytest.mark.parametrize("mode", ["down", "redirect", "huge", "silent", "drip", "zipped", "not-json", "text"])
def test_a_provider_that_cannot_be_used(provider: HostileProvider, mode: Mode) -> None:
    """However it fails, that is what is reported, and there are no settings."""
    provider.mode = mode
    report = look(provider)
    assert topics(report, Level.FAILURE) == {"discovery"}
    assert (report.usable, report.table) == (False, None)
    assert provider.fetches["elsewhere"] == 0


@pytest.mark.parametrize(
    ("claimed", "words"),
    [
        ("{issuer}/", "it speaks for {issuer}/;"),
        ("https://sts.example/{{tenantid}}/v2.0", "every tenant at once"),
    ],
)
def test_an_issuer_spelt_otherwise_is_shown(provider: HostileProvider, claimed: str, words: str) -> None:
    """The admin sees the spelling that the provider uses: with a slash more, or for all tenants."""
    provider.claimed_issuer = claimed.format(issuer=provider.issuer)
    report = look(provider)
    assert topics(report, Level.FAILURE) == {"discovery"}
    assert any(words.format(issuer=provider.issuer) in finding.text for finding in report.findings)


@pytest.mark.parametrize("claimed", [7, None])
def test_a_document_without_an_issuer_is_only_refused(provider: HostileProvider, claimed: Any) -> None:
    """There is nothing to suggest then; nor when the issuer is right and the keys are missing."""
    provider.claimed_issuer = claimed
    assert {finding.topic for finding in look(provider).findings} == {"discovery"}
    provider.claimed_issuer, provider.jwks_uri = provider.issuer, None
    assert {finding.topic for finding in look(provider).findings} == {"discovery"}


def test_keys_on_another_host_are_listed_in_the_settings(provider: HostileProvider) -> None:
    """They are looked at, with a warning, and the settings list the host; a listed one is no surprise."""
    with hostile_provider() as elsewhere:
        elsewhere.jwks = provider.jwks
        provider.jwks_uri = f"{elsewhere.issuer}/jwks"
        host = elsewhere.issuer.removeprefix("http://")
        report = look(provider)
        assert "key-host" in topics(report, Level.WARNING)
        assert settings_of(report).allowed_hosts == (host,)
        assert "key-host" not in topics(look(provider, jwks_hosts=frozenset({host})), Level.WARNING)


@pytest.mark.parametrize(
    ("url", "host"),
    [("https://tokens.example/x", "tokens.example"), ("https://[2001:db8::1]:8443/x", "[2001:db8::1]:8443")],
)
def test_other_hosts_of_endpoints_are_listed(provider: HostileProvider, url: str, host: str) -> None:
    """The signer goes to the token endpoint with its secret only where it is listed."""
    provider.more["token_endpoint"] = url
    assert settings_of(look(provider)).allowed_hosts == (host,)


@pytest.mark.parametrize(
    ("keys", "topic"),
    [
        (b"{}", "keys"),
        (b'{"keys": []}', "keys"),
        (b"<html>", "keys"),
        (jwks(made_once("ES512", "a")), "algorithms"),
        (jwks(made_once("EdDSA", "a")), "algorithms"),
    ],
)
def test_without_usable_keys_there_are_no_settings(provider: HostileProvider, keys: bytes, topic: str) -> None:
    """No key, or only keys for algorithms that are not accepted, or not announced."""
    provider.jwks = keys
    report = look(provider)
    assert topics(report, Level.FAILURE) == {topic}
    assert report.table is None


def test_a_key_set_that_cannot_be_fetched(provider: HostileProvider) -> None:
    """The address of the keys answers something else."""
    provider.bearer, token = "kubernetes", "kubernetes"
    report = look(provider)
    assert topics(report, Level.FAILURE) == {"discovery"}
    assert token not in repr(report)
    provider.bearer, provider.jwks_uri = None, "https://127.0.0.1:1/jwks"
    assert topics(look(provider, jwks_hosts=frozenset({"127.0.0.1:1"})), Level.FAILURE) == {"keys"}


def test_a_provider_that_asks_for_a_token(provider: HostileProvider, tmp_path: Path) -> None:
    """Kubernetes: the token is sent, and the settings name its file, from the root."""
    file = tmp_path / "token"
    file.write_text("kubernetes")
    provider.bearer = "kubernetes"
    report = look(provider, bearer_file=file)
    assert report.usable
    assert settings_of(report).bearer_file == file
    assert "kubernetes" not in repr(report)


@pytest.mark.parametrize("settings", [{"proxy": "socks5://x"}, {"ca_file": Path("/nowhere/ca.crt")}])
def test_settings_that_cannot_be_used_are_refused(provider: HostileProvider, settings: dict[str, Any]) -> None:
    """They are the admin's, not the provider's."""
    with pytest.raises(ConfigError):
        look(provider, **settings)


def test_http_is_refused_unless_it_is_loopback_and_allowed() -> None:
    """Before anybody is asked."""
    for url in ("http://idp.example", "http://127.0.0.1:1"):
        with pytest.raises(ConfigError):
            asyncio.run(probe(IssuerSource(url=url), issuer_id="x", client_id="us"))


def test_a_provider_with_a_private_ca(provider: HostileProvider, tmp_path: Path) -> None:
    """Without its CA file it is not trusted, with it the settings name the file."""
    files = write_server_files(tmp_path)
    with hostile_provider(tls=server_context(files)) as secure:
        secure.jwks = provider.jwks
        assert "not trusted" in look(secure).findings[0].text
        assert settings_of(look(secure, ca_file=files.ca)).ca_file == files.ca


# --- real ones ------------------------------------------------------------------------------------------------------


def real(issuer: str, ca_file: Path) -> Report:
    """What is found out about a real provider."""
    return asyncio.run(probe(IssuerSource(url=issuer, ca_file=ca_file), issuer_id="op", client_id="us"))


def test_node_oidc_provider(tmp_path: Path) -> None:
    """It can everything that is looked for, and nothing about it is careless."""
    with node_provider(tmp_path) as op:
        report = real(op.issuer, op.ca_file)
        assert (report.usable, topics(report, Level.WARNING)) == (True, set())
        every = {"code", "pkce", "rfc9207", "public-clients", "device", "dpop", "introspection", "keys"}
        assert every <= topics(report, Level.GOOD)
        assert settings_of(report).algorithms == ("RS256", "ES256")
        op.change(features={"device": False, "dpop": False, "introspection": False})
        assert {"device", "dpop", "introspection"} <= topics(real(op.issuer, op.ca_file), Level.NOTE)


def test_idpyoidc(tmp_path: Path) -> None:
    """It is usable, without device flow."""
    with running_provider(tmp_path, users=("alice",)) as op:
        report = real(op.issuer, op.ca_file)
        assert report.usable
        assert "device" in topics(report, Level.NOTE)


def test_the_careless_mock(tmp_path: Path) -> None:
    """Its carelessness is found: no PKCE announced, an issuer that follows the Host header."""
    with mock_provider(tmp_path) as op:
        report = real(op.issuer, op.ca_file)
        assert {"pkce", "host-header"} <= topics(report, Level.WARNING)
        assert "rfc9207" in topics(report, Level.NOTE)
