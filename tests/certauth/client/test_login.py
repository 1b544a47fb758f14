"""Logging in, and every lie of a signer that must not get into a credential store."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from certauth.audit.receipt import Receipt
from certauth.certificates import dump_chain, fingerprint, make_intermediate, make_root
from certauth.client.authorization import Browser
from certauth.client.login import Wishes, log_in
from certauth.client.profile import Home
from certauth.clock import system_clock
from certauth.encoding import b64url, from_b64url
from certauth.errors import (
    AnswerError,
    CertauthError,
    ChainError,
    ConfigError,
    LogError,
    Refused,
    RequestError,
    UnavailableError,
    UsageError,
)
from certauth.identity import nonce_for
from certauth.keys import Algorithm, generate
from certauth.names import TrustDomain
from certauth.requests import parse_csr
from tests.simulator.hostile_signer import HostileSigner, Raw, _serial, problem

LogIn = Callable[..., Any]


def stored_files(home: Home) -> set[str]:
    """What is in the home, locks aside."""
    return {
        str(path.relative_to(home.directory))
        for path in home.directory.rglob("*")
        if path.is_file() and path.suffix != ".lock" and path.name != ".lock"
    }


def test_a_login_stores_a_credential_that_belongs_together(signer: HostileSigner, home: Home, log_me_in: LogIn):
    """After a login key, chain, trust and receipt are stored, private, and the profile is the active one."""
    done = log_me_in()
    assert done.peer.principal == done.credential.principal
    assert str(done.credential.principal) == signer.subject_uri
    profile = home.active()
    assert profile.credential(now=system_clock()).fingerprint == done.credential.fingerprint
    assert (done.ignored, done.clamped, done.forgotten_tokens) == ((), None, 0)
    domain = "hostile.example"
    receipt = f"{domain}/receipts/certificate-{done.credential.fingerprint[:16]}.json"
    names = ("key.pem", "chain.pem", "bundle.json", "signer.json", "ca.pem")
    assert stored_files(home) == {"active", receipt, *(f"{domain}/{name}" for name in names)}
    for path in home.directory.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    Receipt.parse((home.directory / receipt).read_bytes())


def test_the_request_names_nobody_and_the_nonce_binds_key_and_signer(signer: HostileSigner, log_me_in: LogIn):
    """The nonce the provider signs is the hash of this key, this signer and the salt; the request asks for no names."""
    log_me_in(lifetime=timedelta(hours=2))
    authorize = next(parse_qs(urlsplit(path).query) for _, path, _, _ in signer.seen if path.startswith("/idp/authorize"))
    redeem = next(parse_qs(body.decode()) for _, path, _, body in signer.seen if path == "/idp/token")
    body = json.loads(next(body for _, path, _, body in signer.seen if path == "/v1/certificates"))
    request = parse_csr(body["csr"])
    assert request.asked == ()
    assert body["lifetime"] == 7200
    assert body["proof"]["token"] == "an.id.token"
    salt = from_b64url(body["proof"]["salt"])
    assert authorize["nonce"] == [nonce_for(signer_id=signer.url, spki=request.spki, salt=salt)]
    assert authorize["code_challenge_method"] == ["S256"]
    assert authorize["code_challenge"] == [b64url(hashlib.sha256(redeem["code_verifier"][0].encode()).digest())]
    assert authorize["redirect_uri"] == redeem["redirect_uri"]
    assert authorize["redirect_uri"][0].startswith("http://127.0.0.1:")
    assert authorize["scope"] == ["openid"]


def test_every_login_has_its_own_key_and_forgets_the_tokens_of_the_old_one(home: Home, log_me_in: LogIn):
    """A second login replaces the pair and removes tokens that only the old certificate could use."""
    first = log_me_in()
    first.profile.store_token("old", "text")
    second = log_me_in(ca=None)  # the stored roots suffice from now on
    assert first.peer.spki != second.peer.spki
    assert second.forgotten_tokens == 1
    assert home.active().token_names() == []
    assert home.active().extra_roots() is not None


def test_what_the_signer_ignored_and_cut_is_reported(signer: HostileSigner, log_me_in: LogIn):
    """Ignored names and a clamped lifetime reach the user."""
    clamp = {"what": "lifetime", "requested": 10, "granted": 5, "by": "cap"}
    signer.lies["/v1/certificates"] = lambda answer: answer | {"ignored": ["CN=bob"], "clamped": clamp}
    done = log_me_in()
    assert (done.ignored, done.clamped) == (("CN=bob",), clamp)


def refused(home: Home, log_me_in: LogIn, kind: type[CertauthError], code: str) -> None:
    """The login fails with this error and leaves nothing behind."""
    before = stored_files(home)
    with pytest.raises(kind) as caught:
        log_me_in()
    assert caught.value.code == code
    assert stored_files(home) == before


METADATA, BUNDLE, CERTIFICATES = "/.well-known/certauth", "/.well-known/certauth/bundle", "/v1/certificates"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"signer": "https://signer.als.example"}, "wrong-signer"),
        ({"signer": "not a url at all"}, "wrong-signer"),
        ({"signer": None}, "bad-answer"),
        ({"trust_domain": "../als"}, "bad-answer"),
        ({"trust_domain": 7}, "bad-answer"),
        ({"endpoints": {"certificates": "https://127.0.0.1:1/v1/certificates", "tokens": "/v1/tokens"}}, "wrong-signer"),
        ({"endpoints": {"certificates": "http://plain/", "tokens": "/v1/tokens"}}, "wrong-signer"),
        ({"endpoints": {"tokens": "/v1/tokens"}}, "bad-answer"),
        ({"endpoints": None}, "bad-answer"),
        ({"issuers": []}, "bad-answer"),
        ({"issuers": ["x"]}, "bad-answer"),
        ({"issuers": [{"id": "../x", "url": "https://op.example", "client_id": "c"}]}, "bad-answer"),
        ({"issuers": [{"id": "x", "url": "http://op.example", "client_id": "c"}]}, "bad-answer"),
        ({"issuers": [{"id": "x", "url": "https://op.example", "client_id": "c", "binding": "knot"}]}, "unknown-binding"),
        ({"issuers": [{"id": "x", "url": "https://op.example", "client_id": "c", "bindings": []}]}, "unknown-binding"),
        ({"issuers": [{"id": "x", "url": "https://op.example", "client_id": "c", "bindings": "nonce"}]}, "bad-answer"),
        ({"issuers": [{"id": "x", "url": "https://op.example", "client_id": "c", "scopes": "openid"}]}, "bad-answer"),
        ({"issuers": [{"id": "x", "url": "https://op.example", "client_id": "c", "flows": [7]}]}, "bad-answer"),
        ({"issuers": [{"id": "x", "url": "https://op.example", "client_id": "c", "kinds": {}}]}, "bad-answer"),
        ({"issuers": [{"id": "x", "url": "https://op.example", "client_id": "c", "access_token_audience": ""}]}, "bad-answer"),
        ({"endpoints": {"certificates": "/a", "tokens": "/b", "logins": "https://127.0.0.1:1/v1/logins"}}, "wrong-signer"),
        ({"endpoints": {"certificates": "/a", "tokens": "/b", "renewals": 7}}, "bad-answer"),
    ],
)
def test_metadata_that_does_not_fit_is_refused(
    signer: HostileSigner, home: Home, log_me_in: LogIn, change: dict[str, Any], code: str
):
    """A signer under another name, with endpoints elsewhere, or describing itself badly gets no proof from us."""
    signer.lies[METADATA] = lambda answer: answer | change
    refused(home, log_me_in, AnswerError, code)
    assert not any(path.startswith(("/idp", "/v1")) for _, path, _, _ in signer.seen)


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        (Raw(pieces=(b"[]",)), AnswerError, "bad-answer"),
        (Raw(pieces=(b"{}{}",)), AnswerError, "bad-answer"),
        (Raw(status=302, headers={"location": "https://127.0.0.1:1/"}), AnswerError, "redirected"),
        (Raw(pieces=(bytes(1024 * 1024),), repeat=200), AnswerError, "answer-too-large"),
        (Raw(headers={"content-encoding": "gzip"}, pieces=(b"x",)), AnswerError, "answer-encoded"),
        (Raw(status=404, pieces=(b"?",)), Refused, "http-404"),
        (Raw(status=500, pieces=(b"?",)), AnswerError, "http-500"),
        (problem(503, "busy", "later", retry_after=9), UnavailableError, "busy"),
        (Raw(hang_up="before"), UnavailableError, "connection-lost"),
        (Raw(pieces=(b"x" * 100, b"y"), hang_up="midway"), UnavailableError, "connection-lost"),
    ],
)
def test_hostile_bodies_are_refused_wherever_they_come_from(
    signer: HostileSigner, home: Home, log_me_in: LogIn, answer: Raw, kind: type[CertauthError], code: str
):
    """A redirect, 200 MB, a compressed bomb, nonsense or a dropped connection ends the login and stores nothing."""
    for path in (METADATA, BUNDLE, "/idp/.well-known/openid-configuration"):
        signer.lies = {path: lambda _: answer}
        refused(home, log_me_in, kind, code)


def test_the_bundle_must_be_of_this_facility_and_signer(signer: HostileSigner, home: Home, log_me_in: LogIn):
    """A trust bundle for another domain, with another signer, or malformed, is not stored."""
    other = signer.bundle(domain=TrustDomain.parse("als.example")).to_json()
    signer.lies[BUNDLE] = lambda _: Raw(pieces=(other,))
    refused(home, log_me_in, AnswerError, "wrong-bundle")
    elsewhere = signer.bundle(signer_url="https://elsewhere.example").to_json()
    signer.lies[BUNDLE] = lambda _: Raw(pieces=(elsewhere,))
    refused(home, log_me_in, AnswerError, "wrong-bundle")
    signer.lies[BUNDLE] = lambda _: Raw(pieces=(b'{"v":1}',))
    refused(home, log_me_in, ConfigError, "bundle-malformed")


def test_an_older_bundle_than_the_stored_one_is_refused(signer: HostileSigner, home: Home, log_me_in: LogIn):
    """A facility's trust does not go back to keys that were since replaced."""
    signer.lies[BUNDLE] = lambda _: Raw(pieces=(signer.bundle(sequence=5).to_json(),))
    log_me_in()
    signer.lies[BUNDLE] = lambda _: Raw(pieces=(signer.bundle(sequence=4).to_json(),))
    refused(home, log_me_in, AnswerError, "bundle-rollback")


def test_another_signer_cannot_take_over_a_domain(signer: HostileSigner, home: Home, log_me_in: LogIn):
    """A second signer that claims a domain with a stored credential is refused, and so is a first that changes its domain."""
    done = log_me_in()
    path = done.profile.directory / "signer.json"
    record = json.loads(path.read_bytes())
    path.write_bytes(json.dumps(record | {"url": "https://signer.als.example"}).encode())
    refused(home, log_me_in, AnswerError, "wrong-signer")
    path.write_bytes(json.dumps(record).encode())
    signer.lies[METADATA] = lambda answer: answer | {"trust_domain": "als.example"}
    refused(home, log_me_in, AnswerError, "wrong-signer")


def test_a_certificate_for_another_key_is_refused(signer: HostileSigner, home: Home, log_me_in: LogIn):
    """A valid, logged certificate that is for somebody else's key is not stored beside ours."""
    other = signer.leaf(generate(Algorithm.P256).public_key)
    signer.lies[CERTIFICATES] = lambda answer: answer | {"certificate_chain": dump_chain([other, signer.issuing]).decode()}
    refused(home, log_me_in, AnswerError, "wrong-key")


def test_a_receipt_for_another_certificate_is_refused(signer: HostileSigner, home: Home, log_me_in: LogIn):
    """A genuine receipt of the genuine log is worth nothing if it is for another certificate."""
    other = signer.leaf(generate(Algorithm.P256).public_key)
    receipt = signer.receipt(signer.certificate_event(other, b"")).to_dict()
    signer.lies[CERTIFICATES] = lambda answer: answer | {"receipt": receipt}
    refused(home, log_me_in, AnswerError, "wrong-receipt")


def test_a_receipt_of_another_kind_is_refused(signer: HostileSigner, home: Home, log_me_in: LogIn):
    """The record of a refusal does not prove a grant."""
    from certauth.audit.record import Denied

    receipt = signer.receipt(Denied(operation="certificate", code="not-enrolled")).to_dict()
    signer.lies[CERTIFICATES] = lambda answer: answer | {"receipt": receipt}
    refused(home, log_me_in, AnswerError, "wrong-receipt")


def test_a_receipt_that_does_not_hold_is_refused(signer: HostileSigner, home: Home, log_me_in: LogIn):
    """No receipt, one under a foreign key, or one with a changed byte: a certificate that may not be in the log is not used."""
    signer.lies[CERTIFICATES] = lambda answer: answer | {"receipt": None}
    refused(home, log_me_in, LogError, "receipt-malformed")

    foreign = generate(Algorithm.ED25519)

    def under_foreign_key(answer: Any) -> Any:
        leaf = signer.leaf(generate(Algorithm.P256).public_key)
        return answer | {"receipt": signer.receipt(signer.certificate_event(leaf, b""), key=foreign).to_dict()}

    signer.lies[CERTIFICATES] = under_foreign_key
    refused(home, log_me_in, LogError, "note-unsigned")

    def changed_byte(answer: Any) -> Any:
        entry = bytearray(from_b64url(answer["receipt"]["entry"]))
        entry[entry.index(b"hostile")] ^= 1
        return answer | {"receipt": answer["receipt"] | {"entry": b64url(bytes(entry))}}

    signer.lies[CERTIFICATES] = changed_byte
    refused(home, log_me_in, LogError, "inclusion-invalid")


def test_a_chain_to_another_root_is_refused(signer: HostileSigner, home: Home, log_me_in: LogIn):
    """A certificate that names the facility but leads to another root is refused, receipt or not."""
    now = datetime.now(UTC)
    keys = generate(Algorithm.P256), generate(Algorithm.P256)
    domain = TrustDomain.parse("hostile.example")
    root = make_root(domain=domain, key=keys[0], serial=_serial(), now=now)
    genuine = signer.issuing, signer.issuing_key
    issuing = make_intermediate(
        domain=domain, public_key=keys[1].public_key, issuer=root, issuer_key=keys[0], serial=_serial(), now=now
    )

    def foreign(_: Any) -> Any:
        body = json.loads(signer.seen[-1][3])
        signer.issuing, signer.issuing_key = issuing, keys[1]
        try:
            return signer.certificate(body)
        finally:
            signer.issuing, signer.issuing_key = genuine

    signer.lies[CERTIFICATES] = foreign
    refused(home, log_me_in, ChainError, "chain-invalid")


def test_a_certificate_of_another_facility_or_with_a_climbing_name_is_refused(
    signer: HostileSigner, home: Home, log_me_in: LogIn
):
    """A signer of one facility cannot hand out names of another; a chain that is none is refused."""
    signer.lies[CERTIFICATES] = lambda _: signer.certificate(
        json.loads(signer.seen[-1][3]), principal="spiffe://als.example/user/alice"
    )
    refused(home, log_me_in, ChainError, "domain-unknown")
    signer.lies[CERTIFICATES] = lambda answer: answer | {"certificate_chain": "-----BEGIN NOTHING-----"}
    refused(home, log_me_in, ChainError, "chain-malformed")
    signer.lies[CERTIFICATES] = lambda answer: answer | {"certificate_chain": "x" * 100_000}
    refused(home, log_me_in, AnswerError, "bad-answer")
    with pytest.raises(RequestError):
        home.profile(TrustDomain.parse("../../etc"))


def test_a_refusal_of_the_signer_keeps_its_code_and_hint(signer: HostileSigner, home: Home, log_me_in: LogIn):
    """What the signer said reaches the user: code, sentence, hint."""
    answer = problem(403, "not-enrolled", "nobody enrolled you", hint="ask the facility")
    signer.lies[CERTIFICATES] = lambda _: answer
    with pytest.raises(Refused) as caught:
        log_me_in()
    assert (caught.value.code, caught.value.message, caught.value.hint) == (
        "not-enrolled",
        "nobody enrolled you",
        "ask the facility",
    )


def test_a_lost_answer_is_asked_for_again_under_the_same_id(signer: HostileSigner, log_me_in: LogIn):
    """A dropped connection or a busy signer is tried again with the same request id, so nothing is granted twice."""
    lies = [Raw(hang_up="before"), problem(503, "busy", "later", retry_after=0)]
    signer.lies[CERTIFICATES] = lambda answer: lies.pop(0) if lies else answer
    log_me_in()
    ids = [json.loads(body)["request_id"] for _, path, _, body in signer.seen if path == CERTIFICATES]
    assert len(ids) == 3
    assert len(set(ids)) == 1


def test_a_busy_signer_is_not_asked_for_ever(signer: HostileSigner, home: Home, log_me_in: LogIn):
    """After three attempts, or if the wait would be long, the user is told."""
    signer.lies[CERTIFICATES] = lambda _: problem(503, "busy", "later", retry_after=0)
    refused(home, log_me_in, UnavailableError, "busy")
    assert sum(path == CERTIFICATES for _, path, _, _ in signer.seen) == 3
    signer.lies[CERTIFICATES] = lambda _: problem(503, "busy", "much later", retry_after=60)
    refused(home, log_me_in, UnavailableError, "busy")
    assert sum(path == CERTIFICATES for _, path, _, _ in signer.seen) == 4


def test_several_identity_providers_need_a_choice(signer: HostileSigner, home: Home, log_me_in: LogIn):
    """With several providers the user names one; an unknown one is refused with the known ones."""
    signer.lies[METADATA] = lambda answer: answer | {"issuers": [*answer["issuers"], answer["issuers"][0] | {"id": "orcid"}]}
    refused(home, log_me_in, UsageError, "several-issuers")
    with pytest.raises(UsageError) as caught:
        log_me_in(issuer="github")
    assert (caught.value.code, caught.value.hint) == ("unknown-issuer", "it knows: campus, orcid")
    assert log_me_in(issuer="orcid").profile.signer().issuer == "orcid"


def test_a_server_nobody_vouches_for_gets_nothing(signer: HostileSigner, home: Home, tmp_path: Path):
    """Without the facility's CA, or with another one, or under another name, the connection is refused."""
    other = make_root(domain=TrustDomain.parse("x.example"), key=generate(Algorithm.P256), serial=1, now=datetime.now(UTC))
    for ca in (None, dump_chain([other])):
        with pytest.raises(ChainError) as caught:
            log_in(home, signer.url, Wishes(ca=ca, browser=Browser(enabled=False)), clock=system_clock, tell=print)
        assert caught.value.code == "server-untrusted"
    renamed = signer.url.replace("127.0.0.1", "127.0.0.2")
    with pytest.raises((ChainError, UnavailableError)):
        log_in(home, renamed, Wishes(ca=signer.ca_file.read_bytes()), clock=system_clock, tell=print)
    assert not signer.seen
    assert fingerprint(signer.root)
