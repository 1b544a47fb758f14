"""Why a token would do or not: the explanation is the decision, and shows nothing of what it was not told to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from certauth.errors import CertauthError
from certauth.identity import (
    Binding,
    BoundKey,
    KeySet,
    ProofKind,
    audience_for,
    nonce_for,
    read_proof,
    verify_id_token,
)
from certauth.identity.mapping import Admission, NotAdmitted, admit
from signer.explaining import Explaining, TokenReport
from signer.introspection import Introspection
from signer.jwks import KeySource
from signer.providers import introspection_sources, key_sources
from signer.settings import IssuerSettings, Settings
from tests.signer.test_jwks import made_once
from tests.simulator.hostile_provider import HostileProvider, ProviderKey, hostile_provider, jwks, without_ellipsis

SIGNER = "https://signer.example"
KEY = made_once("ES256", "a")
STAFF = {"name": "staff", "when": {"all": [{"claim": "/affiliation", "equals": "staff"}]}, "groups": ["staff"]}


@pytest.fixture
def provider() -> Iterator[HostileProvider]:
    """A provider with one key."""
    with hostile_provider() as running:
        running.jwks = jwks(KEY)
        running.more["introspection_endpoint"] = f"{running.issuer}/introspect"
        yield running


def settings_for(provider: HostileProvider, **members: Any) -> Settings:
    """Settings with this provider alone."""
    base = {"id": "lab", "url": provider.issuer, "client_id": "us", "allow_loopback_http": True}
    issuer = IssuerSettings.model_validate({**base, **members})
    return Settings(trust_domain="a.example", public_url=SIGNER, issuer=(issuer,))


def explained(settings: Settings, token: str, *, kind: ProofKind | None = None, opaque: str | None = None) -> TokenReport:
    """What the explanation says."""

    async def run() -> TokenReport:
        key_source = KeySource(key_sources(settings))
        introspection = Introspection(introspection_sources(settings), key_source=key_source, clock=lambda: datetime.now(UTC))
        explaining = Explaining(
            signer_id=SIGNER,
            issuers={issuer.url: issuer.issuer() for issuer in settings.issuer},
            rules={issuer.id: issuer.rules for issuer in settings.issuer},
            key_source=key_source,
            introspection=introspection,
            own_clients={issuer.url: issuer.client_id for issuer in settings.issuer if issuer.public_client_id is not None},
        )
        try:
            return await explaining.explain(token, kind=kind, opaque_issuer=opaque, now=datetime.now(UTC))
        finally:
            await introspection.aclose()
            await key_source.aclose()

    return asyncio.run(run())


def claims_for(provider: HostileProvider, **changes: object) -> dict[str, object]:
    """The claims of a good ID token, some changed or (``...``) left out."""
    now = int(time.time())
    good = {"iss": provider.issuer, "sub": "alice", "aud": "us", "iat": now, "exp": now + 300, "nonce": "of-some-key"}
    return without_ellipsis({**good, **changes})


def names(report: TokenReport) -> list[str]:
    """The checks that were made, the refused one marked."""
    return [f"{check.name}!" if check.code else check.name for check in report.checks]


ALL = ["form", "issuer", "kind", "algorithm", "type", "signature", "times", "login", "audience, subject, key"]


# --- good tokens ----------------------------------------------------------------------------------------------------


def test_a_good_id_token_passes_every_check(provider: HostileProvider) -> None:
    """All checks by name, who it is, and that everybody is admitted where there are no rules."""
    report = explained(settings_for(provider), KEY.sign(claims_for(provider)))
    assert names(report) == ALL
    assert report.error is None
    assert report.identity is not None
    assert (report.identity.subject, report.identity.binding) == ("alice", Binding.NONCE)
    assert (report.admitted, report.enrolment) == (True, "enrolled")


@pytest.mark.parametrize(
    ("members", "claims", "header", "binding"),
    [
        ({"bindings": ("cnf",)}, {"nonce": ..., "cnf": {"jkt": "x" * 43}}, {}, Binding.CNF),
        ({"bindings": ("none",), "assurance": 1}, {"nonce": ...}, {}, Binding.NONE),
        (
            {"kinds": ("access_token",), "bindings": ("dpop",), "access_token_audience": SIGNER},
            {"nonce": ..., "aud": SIGNER, "client_id": "us", "jti": "1", "cnf": {"jkt": "x" * 43}},
            {"typ": "at+jwt"},
            Binding.DPOP,
        ),
        (
            {"kinds": ("workload",), "bindings": ("audience",)},
            {"nonce": ..., "aud": audience_for(signer_id=SIGNER, spki=b"some key")},
            {},
            Binding.AUDIENCE,
        ),
        (
            {"kinds": ("workload",), "bindings": ("audience",)},
            {"nonce": ..., "aud": ["x", audience_for(signer_id=SIGNER, spki=b"some key")]},
            {},
            Binding.AUDIENCE,
        ),
    ],
)
def test_every_kind_and_binding(
    provider: HostileProvider, members: dict[str, Any], claims: dict[str, object], header: dict[str, object], binding: Binding
) -> None:
    """What a token looks like is guessed, its binding is taken as good and named."""
    token = KEY.sign(claims_for(provider, **claims), KEY.header(**header))
    report = explained(settings_for(provider, **members), token)
    assert report.error is None, report.error
    assert report.identity is not None
    assert report.identity.binding is binding


def test_a_key_confirmed_by_itself(provider: HostileProvider) -> None:
    """``cnf.jwk``, as OpenID Connect Key Binding has it."""
    token = KEY.sign(claims_for(provider, nonce=..., cnf={"jwk": made_once("ES256", "b").jwk}))
    report = explained(settings_for(provider, bindings=("cnf",)), token)
    assert report.identity is not None
    assert report.identity.binding is Binding.CNF


# --- the explanation is the decision --------------------------------------------------------------------------------

FORGER = ProviderKey("ES256", "a")
HOSTILE: list[tuple[str, dict[str, object], dict[str, object], str]] = [
    ("expired", {"iat": 1_700_000_000, "exp": 1_700_000_300}, {}, "times!"),
    ("no subject", {"sub": ...}, {}, "audience, subject, key!"),
    ("another audience", {"aud": "somebody else"}, {}, "audience, subject, key!"),
    ("another party", {"azp": "somebody else"}, {}, "audience, subject, key!"),
    ("a control character", {"sub": "a\x1b[2Jb"}, {}, "audience, subject, key!"),
    ("no key id", {}, {"kid": ...}, "signature!"),
    ("another key", {}, {"kid": "b"}, "signature!"),
    ("another algorithm", {}, {"alg": "HS256"}, "algorithm!"),
    ("a logout token", {"events": {}}, {}, "type!"),
    ("an access token", {}, {"typ": "at+jwt"}, "kind!"),
    ("a login to come", {"auth_time": 4_000_000_000}, {}, "login!"),
    ("unbound", {"nonce": ...}, {}, "audience, subject, key!"),
    ("a key brought along", {}, {"jwk": KEY.jwk}, "form!"),
    ("a foreign issuer", {"iss": "https://elsewhere.example"}, {}, "issuer!"),
]


@pytest.mark.parametrize(("claims", "header", "refused"), [each[1:] for each in HOSTILE], ids=[each[0] for each in HOSTILE])
def test_a_hostile_token_is_refused_where_and_as_the_verifier_refuses_it(
    provider: HostileProvider, claims: dict[str, object], header: dict[str, object], refused: str
) -> None:
    """The checks end at the one that refuses, with its code; the verifier says the same of the same token."""
    settings = settings_for(provider)
    token = KEY.sign(claims_for(provider, **claims), KEY.header(**header))
    report = explained(settings, token)
    assert names(report)[-1] == refused
    assert [name for name in names(report) if name.endswith("!")] == [refused]
    assert (report.identity, report.rules, report.admitted) == (None, None, False)
    assert report.error is not None
    if refused not in {"form!", "issuer!", "signature!", "kind!"}:
        with pytest.raises(CertauthError) as caught:
            decide(settings, token)
        assert caught.value.code == report.error.code


def decide(settings: Settings, token: str) -> Any:
    """The verifier alone, with the provider's key, for some key of a client's."""
    issuer = settings.issuer[0].issuer()
    keys = KeySet.parse(jwks(KEY))
    key = BoundKey(signer_id=SIGNER, spki=b"some key", salt=bytes(16))
    return verify_id_token(read_proof(token), issuer=issuer, keys=keys, key=key, now=datetime.now(UTC))


@pytest.mark.parametrize(
    ("public", "audience", "told"),
    [("programs", "us", True), ("programs", ["us"], True), ("programs", "others", False), (None, "others", False)],
)
def test_a_token_for_the_signers_own_client_is_called_that(
    provider: HostileProvider, public: str | None, audience: object, told: bool
) -> None:
    """Where programs have a client of their own: refused from a program, and good in a login through the signer."""
    settings = settings_for(provider, public_client_id=public)
    report = explained(settings, KEY.sign(claims_for(provider, aud=audience)))
    assert (names(report)[-1], report.checks[-1].code) == ("audience, subject, key!", "wrong-audience")
    assert report.error is not None
    assert ("--mediated" in str(report.error.hint)) is told


def test_a_forged_signature(provider: HostileProvider) -> None:
    """Forged under a known key id: that is where it ends."""
    report = explained(settings_for(provider), FORGER.sign(claims_for(provider)))
    assert names(report)[-1] == "signature!"
    assert report.checks[-1].code == "bad-signature"


def test_a_kind_that_is_not_accepted(provider: HostileProvider) -> None:
    """Named outright, it is refused as that kind."""
    report = explained(settings_for(provider), KEY.sign(claims_for(provider)), kind=ProofKind.WORKLOAD)
    assert (names(report)[-1], report.checks[-1].code) == ("kind!", "kind-not-allowed")


def test_a_provider_that_is_down(provider: HostileProvider) -> None:
    """Then nobody knows, and that is what is said."""
    provider.mode = "down"
    report = explained(settings_for(provider), KEY.sign(claims_for(provider)))
    assert (names(report)[-1], report.checks[-1].code) == ("signature!", "issuer-unavailable")


@pytest.mark.parametrize("affiliation", ["staff", "student", None])
def test_the_rules_decide_as_they_would(provider: HostileProvider, affiliation: str | None) -> None:
    """What is explained is what ``admit`` returns for the same identity."""
    settings = settings_for(provider, rule=[STAFF])
    token = KEY.sign(claims_for(provider, affiliation=... if affiliation is None else affiliation))
    report = explained(settings, token)
    assert report.identity is not None
    assert report.rules is not None
    assert report.rules.decision == admit(settings.issuer[0].rules, report.identity)
    assert report.admitted is (affiliation == "staff")
    assert isinstance(report.rules.decision, Admission if affiliation == "staff" else NotAdmitted)


# --- opaque tokens --------------------------------------------------------------------------------------------------


def opaque_settings(provider: HostileProvider, tmp_path: Path) -> Settings:
    """A provider that is asked about its access tokens."""
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)
    secret.write_text("secret")
    return settings_for(
        provider,
        kinds=("access_token",),
        bindings=("none",),
        assurance=1,
        access_token_audience=SIGNER,
        introspection=True,
        client_secret_file=secret,
    )


def test_an_opaque_token_is_asked_about(provider: HostileProvider, tmp_path: Path) -> None:
    """Its issuer says who it is; an inactive one is refused; without a name nobody is asked."""
    settings = opaque_settings(provider, tmp_path)
    provider.says = {**claims_for(provider, nonce=..., aud=SIGNER), "active": True, "client_id": "us", "token_type": "Bearer"}
    report = explained(settings, "opaque", opaque=provider.issuer)
    assert names(report) == ["issuer", "introspection", "state"], report.error
    assert report.identity is not None
    assert (report.identity.subject, report.identity.assurance) == ("alice", 1)
    provider.says = {"active": False}
    report = explained(settings, "opaque2", opaque=provider.issuer)
    assert names(report) == ["issuer", "introspection", "state!"]
    report = explained(settings, "opaque3")
    assert names(report) == ["issuer!"]


def test_a_token_that_cannot_be_asked_about(provider: HostileProvider, tmp_path: Path) -> None:
    """The provider is down, or is not asked at all."""
    settings = opaque_settings(provider, tmp_path)
    provider.mode = "down"
    assert names(explained(settings, "opaque", opaque=provider.issuer)) == ["issuer", "introspection!"]
    report = explained(settings_for(provider), "opaque", opaque=provider.issuer)
    assert (names(report), report.checks[-1].code) == (["issuer", "introspection!"], "unknown-issuer")
    report = explained(settings, "opaque", opaque="https://elsewhere.example")
    assert (names(report), report.checks[-1].code) == (["issuer!"], "unknown-issuer")


# --- what it is not -------------------------------------------------------------------------------------------------


def test_the_real_verifier_still_wants_the_real_key(provider: HostileProvider) -> None:
    """The token that an explanation admits is refused for any key it is not bound to."""
    token = KEY.sign(claims_for(provider, nonce=nonce_for(signer_id=SIGNER, spki=b"alices key", salt=bytes(16))))
    settings = settings_for(provider)
    assert explained(settings, token).admitted
    for spki, code in ((b"alices key", None), (b"another key", "key-not-bound")):
        key = BoundKey(signer_id=SIGNER, spki=spki, salt=bytes(16))
        try:
            verify_id_token(
                read_proof(token),
                issuer=settings.issuer[0].issuer(),
                keys=KeySet.parse(jwks(KEY)),
                key=key,
                now=datetime.now(UTC),
            )
            found = None
        except CertauthError as error:
            found = error.code
        assert found == code


def test_no_report_holds_the_token(provider: HostileProvider) -> None:
    """Neither the token nor its signature is in what can be printed."""
    token = KEY.sign(claims_for(provider))
    for each in (token, token[:-8] + "AAAAAAAA"):
        shown = repr(explained(settings_for(provider), each))
        assert each not in shown
        assert each.rpartition(".")[2] not in shown
        assert "of-some-key" not in shown
