"""The identity providers that a facility believes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from certauth.errors import ConfigError, ProofError
from certauth.identity import Binding, Issuer, ProofKind, issuer_of, registry

URL = "https://idp.example/realms/lab"


def make(**changes: Any) -> Issuer:
    """An issuer that is fine but for the changes."""
    return Issuer(**{"id": "lab", "url": URL, "audience": "signer", **changes})


def test_an_issuer_is_found_by_its_exact_url() -> None:
    """Each configured issuer is found under its own URL."""
    lab, other = make(), make(id="other", url="https://other.example")
    issuers = registry([lab, other])
    assert issuer_of(URL, issuers) is lab
    assert issuer_of("https://other.example", issuers) is other


@pytest.mark.parametrize(
    "near",
    [
        URL + "/",
        URL.upper(),
        "https://IDP.example/realms/lab",
        "https://idp.example:443/realms/lab",
        URL + " ",
        "",
        "http" + URL[5:],
    ],
)
def test_no_near_miss_is_repaired(near: str) -> None:
    """Another spelling of an issuer's URL is another issuer, and unknown."""
    with pytest.raises(ProofError) as caught:
        issuer_of(near, registry([make()]))
    assert caught.value.code == "unknown-issuer"
    assert caught.value.hint


class KIND:
    """Sets of one kind."""

    ID_TOKEN, ACCESS_TOKEN, WORKLOAD, CODE, CERTIFICATE = (
        frozenset({kind})
        for kind in (ProofKind.ID_TOKEN, ProofKind.ACCESS_TOKEN, ProofKind.WORKLOAD, ProofKind.CODE, ProofKind.CERTIFICATE)
    )


class TIE:
    """Sets of one binding."""

    NONCE, AUDIENCE, DPOP, POSSESSION, NONE = (
        frozenset({binding}) for binding in (Binding.NONCE, Binding.AUDIENCE, Binding.DPOP, Binding.POSSESSION, Binding.NONE)
    )


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"kinds": KIND.WORKLOAD, "bindings": TIE.AUDIENCE, "audience": "", "scopes": ()}, id="a CI system"),
        pytest.param({"kinds": KIND.ID_TOKEN | KIND.WORKLOAD, "bindings": TIE.NONCE | TIE.AUDIENCE}, id="a forge with both"),
        pytest.param({"bindings": TIE.NONCE | TIE.NONE, "assurance": 1}, id="unbound logins, worth little"),
        pytest.param({"bindings": TIE.NONCE | TIE.DPOP}, id="a binding that no kind needs"),
        pytest.param(
            {"kinds": KIND.ID_TOKEN | KIND.ACCESS_TOKEN, "bindings": TIE.NONCE | TIE.DPOP, "access_token_audience": "urn:us"},
            id="logins and DPoP",
        ),
        pytest.param({"enrolment": "invite"}, id="by invitation"),
        pytest.param({"enrolment": "approve"}, id="by approval"),
        pytest.param({"email_verified": "trusted"}, id="a provider that leaves the flag out"),
        pytest.param({"kinds": frozenset({"id_token"}), "bindings": frozenset({"nonce"})}, id="as plain text"),
    ],
)
def test_entries_that_facilities_write(changes: dict[str, Any]) -> None:
    """Negative control: what makes sense is accepted."""
    assert make(**changes).id == "lab"


@pytest.mark.parametrize("changes", [{"id": "second"}, {"url": "https://second.example"}])
def test_url_and_id_are_unique(changes: dict[str, str]) -> None:
    """Two entries may share neither URL nor id: the second would silently win."""
    with pytest.raises(ConfigError) as caught:
        registry([make(), make(**changes)])
    assert caught.value.code == "issuer-duplicate"


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"id": "../lab"}, id="an id that climbs"),
        pytest.param({"audience": ""}, id="no audience"),
        pytest.param({"kinds": frozenset()}, id="no kind"),
        pytest.param({"kinds": KIND.CODE}, id="a kind that no provider signs"),
        pytest.param({"kinds": KIND.ID_TOKEN | KIND.CERTIFICATE}, id="such a kind among others"),
        pytest.param({"kinds": frozenset({"passport"})}, id="an unknown kind"),
        pytest.param({"bindings": frozenset()}, id="no binding"),
        pytest.param({"bindings": TIE.AUDIENCE}, id="logins bound by audience"),
        pytest.param({"bindings": TIE.POSSESSION}, id="logins bound by possession"),
        pytest.param({"kinds": KIND.WORKLOAD}, id="workloads bound by nonce"),
        pytest.param({"kinds": KIND.ID_TOKEN | KIND.WORKLOAD}, id="workloads bound by nothing that is listed"),
        pytest.param({"kinds": KIND.ACCESS_TOKEN, "bindings": TIE.DPOP}, id="access tokens for nobody"),
        pytest.param({"kinds": KIND.ACCESS_TOKEN, "bindings": TIE.DPOP, "access_token_audience": ""}, id="for an empty name"),
        pytest.param({"bindings": TIE.NONE}, id="unbound at the usual assurance"),
        pytest.param({"bindings": TIE.NONCE | TIE.NONE, "assurance": 2}, id="unbound among others, at 2"),
        pytest.param(
            {"kinds": KIND.ID_TOKEN | KIND.WORKLOAD, "bindings": TIE.NONE, "assurance": 1}, id="people and jobs, both unbound"
        ),
        pytest.param(
            {
                "kinds": KIND.ACCESS_TOKEN,
                "bindings": TIE.DPOP,
                "access_token_audience": "signer",
                "untyped_access_tokens": True,
            },
            id="untyped access tokens for our client id",
        ),
        pytest.param(
            {"audience": "", "kinds": KIND.WORKLOAD, "bindings": TIE.AUDIENCE | TIE.NONE, "assurance": 1},
            id="unbound, for nobody",
        ),
        pytest.param({"email_verified": "never"}, id="addresses on no known terms"),
        pytest.param({"enrolment": "anybody"}, id="enrolment on no known terms"),
        pytest.param({"algorithms": frozenset()}, id="no algorithm"),
        pytest.param({"algorithms": frozenset({"RS256", "none"})}, id="none"),
        pytest.param({"algorithms": frozenset({"HS256"})}, id="a shared secret"),
        pytest.param({"algorithms": frozenset({"ES256K"})}, id="an odd curve"),
        pytest.param({"skew": timedelta(minutes=6)}, id="skew too large"),
        pytest.param({"skew": timedelta(seconds=-1)}, id="skew negative"),
        pytest.param({"max_age": timedelta(0)}, id="no age at all"),
        pytest.param({"max_age": timedelta(days=2)}, id="an ID token that lives for days"),
        pytest.param({"max_lifetime": timedelta(days=9)}, id="lifetime too long"),
        pytest.param({"assurance": 4}, id="assurance above the scale"),
        pytest.param({"assurance": -1}, id="assurance below the scale"),
        pytest.param({"scopes": ("profile",)}, id="no openid scope"),
        pytest.param({"url": "http://idp.example"}, id="http"),
        pytest.param({"url": "http://127.0.0.1:8080"}, id="loopback http, not allowed"),
        pytest.param({"url": "http://idp.example", "allow_loopback_http": True}, id="http elsewhere, loopback allowed"),
        pytest.param({"url": "ftp://idp.example"}, id="ftp"),
        pytest.param({"url": "https://"}, id="no host"),
        pytest.param({"url": "https://idp.example:port"}, id="a port that is none"),
        pytest.param({"url": "https://idp.example:0"}, id="port 0"),
        pytest.param({"url": "https://[::1"}, id="half an address"),
        pytest.param({"url": "https://alice:secret@idp.example"}, id="a password"),
        pytest.param({"url": "https://idp.example?tenant=x"}, id="a query"),
        pytest.param({"url": "https://idp.example#x"}, id="a fragment"),
        pytest.param({"url": "https://idp.example\\@evil.example"}, id="a backslash"),
        pytest.param({"url": "https://idp.example/a b"}, id="a space"),
        pytest.param({"url": "https://idp.example/\x00"}, id="a control character"),
        pytest.param({"url": "https://ídp.example"}, id="not ASCII"),
    ],
)
def test_an_unsafe_entry_is_refused_at_the_start(changes: dict[str, Any]) -> None:
    """A configuration that could never be safe stops the program, and says which issuer is meant."""
    with pytest.raises(ConfigError) as caught:
        make(**changes)
    assert caught.value.code == "issuer-invalid"


def test_defaults_are_those_of_the_documentation() -> None:
    """Ten minutes, one minute of skew, one day, RS256 and ES256, enrolled people only."""
    issuer = make()
    assert (issuer.max_age, issuer.skew, issuer.max_lifetime) == (
        timedelta(minutes=10),
        timedelta(minutes=1),
        timedelta(days=1),
    )
    assert issuer.algorithms == {"RS256", "ES256"}
    assert (issuer.enrolment, issuer.assurance, issuer.single_key) == ("enrolled", 2, False)
    assert (issuer.kinds, issuer.bindings) == (KIND.ID_TOKEN, TIE.NONCE)
    assert (issuer.email_verified, issuer.untyped_access_tokens, issuer.access_token_audience) == ("required", False, None)


def test_loopback_http_only_when_allowed() -> None:
    """For trying things out, http on the loopback address can be switched on."""
    assert make(url="http://127.0.0.1:8080", allow_loopback_http=True).url == "http://127.0.0.1:8080"


def test_both_names_of_ed25519_are_one() -> None:
    """RFC 9864 renames EdDSA with Ed25519; an issuer may be configured with either."""
    assert make(algorithms=frozenset({"Ed25519"})).algorithms == make(algorithms=frozenset({"EdDSA"})).algorithms
