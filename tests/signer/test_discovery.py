"""What a provider says about itself: read with care, and never believed about somebody else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certauth.errors import CertauthError, UnavailableError
from signer.discovery import ENDPOINTS, Discovery, authority_of, check_host, discovery_url

ISSUER = "https://idp.example/realm"
FULL: dict[str, Any] = {
    "issuer": ISSUER,
    "jwks_uri": "https://idp.example/jwks",
    "authorization_endpoint": "https://idp.example/auth",
    "token_endpoint": "https://idp.example/token",
    "userinfo_endpoint": "https://idp.example/me",
    "introspection_endpoint": "https://idp.example/introspect",
    "device_authorization_endpoint": "https://idp.example/device",
    "authorization_response_iss_parameter_supported": True,
    "code_challenge_methods_supported": ["S256", "plain"],
    "dpop_signing_alg_values_supported": ["ES256"],
    "id_token_signing_alg_values_supported": ["RS256"],
    "response_types_supported": ["code"],
    "grant_types_supported": ["authorization_code"],
    "token_endpoint_auth_methods_supported": ["none"],
    "introspection_endpoint_auth_methods_supported": ["client_secret_post"],
    "scopes_supported": ["openid", "email"],
    "claims_supported": ["sub"],
    "acr_values_supported": ["https://refeds.org/profile/mfa"],
}


def parse(document: object, **settings: bool) -> Discovery:
    """A document as ``ISSUER`` would have published it."""
    return Discovery.parse(json.dumps(document).encode(), issuer=ISSUER, **settings)


def test_everything_that_is_used_is_read() -> None:
    """A complete document fills every field."""
    found = parse(FULL)
    assert found.endpoints() == {name: FULL[name] for name in ENDPOINTS}
    assert found.names_itself
    lists = {name.removesuffix("_supported"): set(value) for name, value in FULL.items() if isinstance(value, list)}
    assert lists == {
        "code_challenge_methods": found.code_challenge_methods,
        "dpop_signing_alg_values": found.dpop_algorithms,
        "id_token_signing_alg_values": found.id_token_algorithms,
        "response_types": found.response_types,
        "grant_types": found.grant_types,
        "token_endpoint_auth_methods": found.token_auth_methods,
        "introspection_endpoint_auth_methods": found.introspection_auth_methods,
        "scopes": found.scopes,
        "claims": found.claims,
        "acr_values": found.acr_values,
    }
    assert found.ignored == ()


def test_what_is_not_said_has_the_default_of_the_specification() -> None:
    """OpenID Connect Discovery §3: no list means these values; no endpoint means none; nothing optional is assumed."""
    found = parse({"issuer": ISSUER, "jwks_uri": "https://idp.example/jwks"})
    assert found.endpoints() == {"jwks_uri": "https://idp.example/jwks"}
    assert found.grant_types == {"authorization_code", "implicit"}
    assert found.token_auth_methods == {"client_secret_basic"}
    assert not found.names_itself
    assert found.code_challenge_methods == frozenset()


@pytest.mark.parametrize(
    "issuer", [None, "", "https://idp.example/realm/", "https://IDP.example/realm", "https://evil.example", 1]
)
def test_it_speaks_for_its_issuer_to_the_letter(issuer: object) -> None:
    """A slash more, another case, another host: another issuer."""
    with pytest.raises(UnavailableError, match="names another issuer"):
        parse(FULL | {"issuer": issuer})


@pytest.mark.parametrize("document", [None, [], "x", 7, {}, {"jwks_uri": "https://idp.example/jwks"}])
def test_what_is_no_document_is_refused(document: object) -> None:
    """JSON that is something else."""
    with pytest.raises(UnavailableError, match="is not one"):
        parse(document)


@pytest.mark.parametrize("jwks_uri", [None, 7, ["https://idp.example/jwks"]])
def test_without_a_key_set_it_is_useless(jwks_uri: object) -> None:
    """A key set that is missing, or no text."""
    with pytest.raises(UnavailableError, match="or no key set"):
        parse(FULL | {"jwks_uri": jwks_uri})


@pytest.mark.parametrize(
    "url",
    [
        "http://idp.example/x",
        "ftp://idp.example/x",
        "//idp.example/x",
        "https://u:p@idp.example/x",
        "https://idp.example/#x",
        "",
    ],
)
def test_an_endpoint_that_is_unsafe_is_left_out_and_named(url: str) -> None:
    """It can then not be used by mistake; as the place of the keys it makes the document useless."""
    for name in ENDPOINTS[1:]:
        found = parse(FULL | {name: url})
        assert name not in found.endpoints()
        assert getattr(found, name) is None
        assert found.ignored[0].startswith(f"{name}: ")
    with pytest.raises(UnavailableError, match="not at an https address"):
        parse(FULL | {"jwks_uri": url})


@pytest.mark.parametrize("value", [7, [], {}, True])
def test_an_endpoint_that_is_no_text_is_left_out(value: object) -> None:
    """So is what cannot be a URL at all."""
    assert parse(FULL | {"token_endpoint": value}).token_endpoint is None


def test_loopback_http_only_where_allowed() -> None:
    """For trying things out; never another host."""
    document = FULL | {"token_endpoint": "http://127.0.0.1:8080/token"}
    assert parse(document).token_endpoint is None
    assert parse(document, allow_loopback_http=True).token_endpoint == "http://127.0.0.1:8080/token"
    assert parse(FULL | {"token_endpoint": "http://idp.example/"}, allow_loopback_http=True).token_endpoint is None


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("S256", frozenset()),
        ({"S256": 1}, frozenset()),
        (["S256", 7, None, ["plain"], "\x1b[2J", "x" * 201], {"S256"}),
        (["S256"] * 200 + ["plain"], {"S256"}),
    ],
)
def test_lists_hold_printable_words(value: object, read: frozenset[str]) -> None:
    """What is no list, no text, not printable or far too long is as good as absent."""
    assert parse(FULL | {"code_challenge_methods_supported": value}).code_challenge_methods == read


@pytest.mark.parametrize("value", ["true", 1, None, [True]])
def test_naming_itself_is_a_promise_in_so_many_words(value: object) -> None:
    """Only ``true`` obliges the provider to send ``iss`` (RFC 9207 §3)."""
    assert not parse(FULL | {"authorization_response_iss_parameter_supported": value}).names_itself


def test_endpoints_that_moved_are_named() -> None:
    """Elsewhere or gone counts, new ones do not."""
    before = parse(FULL)
    assert before.moved_since(before) == ()
    after = parse({**FULL, "token_endpoint": "https://idp.example/elsewhere", "userinfo_endpoint": None})
    assert after.moved_since(before) == ("token_endpoint", "userinfo_endpoint")
    assert before.moved_since(after) == ("token_endpoint",)


@pytest.mark.parametrize(
    ("url", "listed", "allowed"),
    [
        ("https://idp.example/x", (), True),
        ("https://idp.example:443/x", (), True),
        ("https://IDP.example/x", (), True),
        ("https://idp.example:8443/x", (), False),
        ("https://keys.example/x", (), False),
        ("https://keys.example/x", ("keys.example",), True),
        ("https://keys.example:8443/x", ("keys.example",), False),
        ("https://keys.example:8443/x", ("keys.example:8443",), True),
        ("https://evil-keys.example/x", ("keys.example",), False),
        ("https://[::1]:8443/x", ("[::1]:8443",), True),
    ],
)
def test_what_is_at_home_and_what_is_listed(url: str, listed: tuple[str, ...], allowed: bool) -> None:
    """Host and port together, to the letter but for case."""
    if allowed:
        check_host(url, "key set", issuer=ISSUER, listed=listed)
    else:
        with pytest.raises(UnavailableError, match="key set is on a host that is not listed"):
            check_host(url, "key set", issuer=ISSUER, listed=listed)


def test_where_the_document_is() -> None:
    """Behind the issuer's path, without a double slash (OpenID Connect Discovery §4.1)."""
    assert discovery_url(ISSUER) == "https://idp.example/realm/.well-known/openid-configuration"
    assert discovery_url("https://idp.example/") == "https://idp.example/.well-known/openid-configuration"
    assert authority_of("http://localhost/x") == ("localhost", 80)


@given(st.dictionaries(st.sampled_from([*FULL]), st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists)))
def test_no_document_breaks_the_reader(changes: dict[str, object]) -> None:
    """Whatever a provider publishes, it is read or refused; an endpoint that is there is https."""
    try:
        found = parse(FULL | changes)
    except (CertauthError, ValueError):  # a ValueError is bytes that are no strict JSON (NaN, half a surrogate)
        return
    assert all(url.startswith("https://") for url in found.endpoints().values())
