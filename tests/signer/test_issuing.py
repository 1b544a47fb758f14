"""Issuing, over the wire: what is granted, what is refused, and that neither happens without its record."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from certauth import certificates, keys
from certauth.audit import record
from certauth.audit.checkpoint import VerifierKey
from certauth.audit.receipt import Receipt, check
from certauth.audit.verify import verify_log
from certauth.encoding import from_b64url
from certauth.keys import Algorithm
from certauth.revocation import open_feed
from certauth.tokens import TrustedTokenKey, verify
from signer.service import Service
from tests.signer.kit import DOMAIN, Identity, Site, facility, make_csr
from tests.simulator.hostile_provider import ProviderKey, jwks, malleated


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A facility with three people."""
    with facility(tmp_path_factory.mktemp("site")) as made:
        made.enroll("alice", "files:read,write:/alice/", "files:read:/shared/", group="staff", role="scientist", project="p7")
        made.enroll("bob", "files:read:/bob/")
        made.enroll("carol", max_lifetime="1h")
        yield made


@pytest.fixture(scope="module")
def service(site: Site) -> Iterator[Service]:
    """The running service."""
    with site.serving() as running:
        yield running


@pytest.fixture(scope="module")
def alice(site: Site, service: Service) -> Identity:
    """Somebody with a certificate."""
    return site.log_in("alice")


def ask(site: Site, body: dict[str, Any]) -> httpx2.Response:
    """Ask for a certificate."""
    with site.client() as client:
        return client.post("/v1/certificates", json=body)


def refused(answer: httpx2.Response, code: str) -> None:
    """The answer is a problem document with this code."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    assert answer.json()["code"] == code, answer.text
    assert answer.json()["status"] == answer.status_code


def entries(service: Service) -> list[dict[str, Any]]:
    """The log, decoded."""
    with service.store.log() as reader:
        return [record.decode(entry.body) for entry in reader.entries()]


# --- certificates --------------------------------------------------------------------------------------------------------


def test_login_leads_to_a_certificate_with_one_name_and_a_receipt_that_proves_it(site: Site, service: Service) -> None:
    """A person who proves who they are gets a client certificate for exactly their principal, and proof of its record."""
    key = keys.generate(Algorithm.P256)
    answer = ask(site, site.body("alice", key))
    assert answer.status_code == 201
    chain = certificates.load_chain(answer.json()["certificate_chain"].encode())
    leaf = chain[0]
    assert str(certificates.principal_of(leaf)) == f"spiffe://{DOMAIN}/user/alice" == answer.json()["principal"]
    assert [usage.dotted_string for usage in leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value] == [
        "1.3.6.1.5.5.7.3.2"
    ]
    checked = check(Receipt.from_dict(answer.json()["receipt"]), VerifierKey.parse(service.authority.bundle.log_vkey))
    assert checked.record["grant"]["cert"] == certificates.fingerprint(leaf)
    assert checked.record["kind"] == "grant.cert"


def test_names_in_the_request_are_reported_and_never_granted(site: Site, service: Service) -> None:
    """A request that asks for somebody else's names gets its own, and hears what was ignored."""
    key = keys.generate(Algorithm.P256)
    names = [x509.UniformResourceIdentifier(f"spiffe://{DOMAIN}/user/bob"), x509.DNSName("signer.facility.test")]
    answer = ask(site, site.body("alice", key, csr=make_csr(key, name="root", names=names)))
    assert answer.status_code == 201
    assert {"CN=root", "DNS:signer.facility.test", f"URI:spiffe://{DOMAIN}/user/bob"} <= set(answer.json()["ignored"])
    leaf = certificates.load_chain(answer.json()["certificate_chain"].encode())[0]
    names_granted = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [name.value for name in names_granted] == [f"spiffe://{DOMAIN}/user/alice"]
    assert "root" not in leaf.subject.rfc4514_string()


def test_lifetime_above_the_cap_is_clamped_and_said(site: Site, service: Service) -> None:
    """A self-chosen lifetime never exceeds the least of the caps, and the answer and the log say so."""
    body = site.body("alice", keys.generate(Algorithm.P256)) | {"lifetime": 30 * 86400}
    answer = ask(site, body)
    assert answer.json()["clamped"]["granted"] == 86400
    leaf = certificates.load_chain(answer.json()["certificate_chain"].encode())[0]
    assert leaf.not_valid_after_utc - site.clock() <= timedelta(days=1)
    assert entries(service)[-1]["decision"]["clamp"]["asked"] == 30 * 86400
    carol = ask(site, site.body("carol", keys.generate(Algorithm.P256)))
    assert carol.status_code == 201
    assert certificates.load_chain(carol.json()["certificate_chain"].encode())[
        0
    ].not_valid_after_utc - site.clock() <= timedelta(hours=1)


@pytest.mark.parametrize("lifetime", [0, -5, 1e6, "3600", 10**12, True, 10])
def test_lifetime_that_is_none_is_refused(site: Site, service: Service, lifetime: object) -> None:
    """Zero, negative, fractional, textual, boolean and absurd lifetimes are refused, not guessed at."""
    answer = ask(site, site.body("alice", keys.generate(Algorithm.P256)) | {"lifetime": lifetime})
    refused(answer, "lifetime-invalid" if lifetime == 10 and lifetime is not True else "body-malformed")


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"iss": "https://elsewhere.example"}, "unknown-issuer"),
        ({"aud": "another-client"}, "wrong-audience"),
        ({"aud": ["signer-under-test", "another"], "azp": "another"}, "wrong-audience"),
        ({"exp": 1_700_000_000, "iat": 1_699_999_000}, "proof-expired"),
        ({"iat": 4_000_000_000, "exp": 4_000_000_600}, "proof-not-yet-valid"),
        ({"nonce": ...}, "key-not-bound"),
        ({"nonce": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}, "key-not-bound"),
        ({"sub": ...}, "missing-claim"),
        ({"sub": "dave"}, "not-enrolled"),
    ],
)
def test_proof_that_does_not_prove_it_gets_nothing(site: Site, service: Service, claims: dict[str, object], code: str) -> None:
    """Each hostile claim, genuinely signed by the provider, is refused with its own code, and nothing is granted."""
    before = len(service.store.certificates())
    refused(ask(site, site.body("alice", keys.generate(Algorithm.P256), **claims)), code)
    assert len(service.store.certificates()) == before


def test_thief_of_an_id_token_cannot_use_it_with_another_key(site: Site, service: Service) -> None:
    """An ID token stolen on its way is refused with the thief's request: the nonce names alice's key."""
    stolen = site.body("alice", keys.generate(Algorithm.P256))
    stolen["csr"] = make_csr(keys.generate(Algorithm.P256))
    refused(ask(site, stolen), "key-not-bound")


def test_proof_works_once_also_with_its_other_signature(site: Site, service: Service) -> None:
    """A used proof is refused, and so is its twin (r, n-s), which is a second valid signature over the same claims."""
    key = keys.generate(Algorithm.P256)
    body = site.body("alice", key)
    assert ask(site, body).status_code == 201
    refused(ask(site, body), "replayed")
    body["proof"]["token"] = malleated(body["proof"]["token"])
    refused(ask(site, body), "replayed")


def test_forged_proof_neither_burns_the_genuine_one_nor_grows_the_log(site: Site, service: Service) -> None:
    """A forged token over the same claims is refused before anything is consumed; the genuine one still works."""
    key = keys.generate(Algorithm.P256)
    genuine = site.body("alice", key)
    header, claims, _ = genuine["proof"]["token"].split(".")
    forger = ProviderKey("ES256")
    forged = json.loads(json.dumps(genuine))
    forged["proof"]["token"] = f"{header}.{claims}.{forger.sign({}).rpartition('.')[2]}"
    size = service.ledger.status().size
    for _ in range(3):
        assert ask(site, forged).status_code in (401, 503)  # 503: a bad signature under a known kid may mean a new key
    assert service.ledger.status().size == size
    assert ask(site, genuine).status_code == 201


def test_same_subject_at_another_issuer_is_another_person(site: Site, service: Service) -> None:
    """The pair of issuer and subject is the person: the same subject elsewhere is nobody here."""
    identity = service.store.enrolment(issuer="https://another.example", subject="alice")
    assert identity is None
    assert service.store.enrolment(issuer=site.provider.issuer, subject="alice") is not None


def test_repeated_request_gets_the_same_certificate(site: Site, service: Service) -> None:
    """A client that lost the answer repeats the request under its id and receives what was granted the first time."""
    body = site.body("alice", keys.generate(Algorithm.P256)) | {"request_id": "lost-answer-0001"}
    first, second = ask(site, body), ask(site, body)
    assert first.json()["certificate_chain"] == second.json()["certificate_chain"]
    other = site.body("alice", keys.generate(Algorithm.P256)) | {"request_id": "lost-answer-0001"}
    refused(ask(site, other), "request-id-used")


def test_refusal_of_a_known_person_is_recorded_before_it_is_answered(site: Site, service: Service) -> None:
    """Somebody who proved who they are and is refused leaves an entry with code and commitment, and no clear subject."""
    refused(ask(site, site.body("erin", keys.generate(Algorithm.P256))), "not-enrolled")
    entry = entries(service)[-1]
    assert (entry["kind"], entry["decision"]["code"]) == ("grant.deny", "not-enrolled")
    assert "erin" not in json.dumps(entry)


@pytest.mark.parametrize(
    ("csr", "code"),
    [("", "csr-malformed"), ("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----", "csr-malformed")],
)
def test_malformed_request_is_refused(site: Site, service: Service, csr: str, code: str) -> None:
    """What is not a certification request is refused with a code."""
    body = site.body("alice", keys.generate(Algorithm.P256))
    refused(ask(site, body | {"csr": csr}), code)


def test_request_whose_signature_was_changed_is_refused(site: Site, service: Service) -> None:
    """Without the key there is no certificate: a request with another signature is refused."""
    key = keys.generate(Algorithm.P256)
    csr = x509.load_pem_x509_csr(make_csr(key).encode())
    forged = csr.public_bytes(serialization.Encoding.DER)[:-8] + bytes(8)
    pem = "-----BEGIN CERTIFICATE REQUEST-----\n" + base64.encodebytes(forged).decode() + "-----END CERTIFICATE REQUEST-----\n"
    answer = ask(site, site.body("alice", key, csr=pem))
    assert answer.json()["code"] in {"csr-signature", "csr-malformed"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"csr": "x", "csr": "y"}',
        b'{"csr": "x", "proof": {"type": "id_token", "token": "x", "salt": "AAAAAAAAAAAAAAAAAAAAAA"}, "admin": true}',
        b'{"csr": 1, "proof": null}',
    ],
)
def test_body_that_does_not_fit_is_refused(site: Site, service: Service, body: bytes) -> None:
    """Empty, torn, duplicate and unknown members are refused, and the answer never repeats what was sent."""
    with site.client() as client:
        refused(client.post("/v1/certificates", content=body), "body-malformed")


def test_oversized_body_is_refused_announced_or_not(site: Site, service: Service) -> None:
    """Neither a large Content-Length nor an endless chunked body gets further than the limit."""
    with site.client() as client:
        refused(client.post("/v1/certificates", content=b" " * 70_000), "body-too-large")
        refused(client.post("/v1/certificates", content=iter([b" " * 40_000] * 3)), "body-too-large")


def test_salt_of_another_spelling_is_refused(site: Site, service: Service) -> None:
    """A salt that is not canonical base64url is a malformed request."""
    body = site.body("alice", keys.generate(Algorithm.P256))
    body["proof"]["salt"] = "!" * 22
    refused(ask(site, body), "body-malformed")


def test_provider_that_is_down_is_said_and_known_keys_still_work(site: Site, service: Service) -> None:
    """With the provider gone, an unknown key id waits, and people whose key is known are served."""
    site.provider.mode = "down"
    try:
        assert ask(site, site.body("alice", keys.generate(Algorithm.P256))).status_code == 201
        stranger = ProviderKey("ES256", kid="never-seen")
        body = site.body("alice", keys.generate(Algorithm.P256))
        claims = json.loads(claims_of(body["proof"]["token"]))
        body["proof"]["token"] = stranger.sign(claims)
        answer = ask(site, body)
        assert answer.status_code in (401, 503)
    finally:
        site.provider.mode = "ok"
        site.provider.jwks = jwks(site.provider_key)


def claims_of(token: str) -> str:
    """The claims of a token, as text."""
    return from_b64url(token.split(".")[1]).decode()


# --- kinds of proof ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "proof",
    [
        {},
        None,
        "id_token",
        {"type": "password", "token": "x"},
        {"type": "certificate"},  # a kind of ours, and not one that a body can be
        {"type": ["id_token"], "token": "x"},
        {"type": "id_token"},
        {"type": "id_token", "token": "x", "issuer": "campus"},
        {"type": "login", "login": "x" * 65, "secret": "s" * 16},
        {"type": "code", "code": "short"},
        {"type": "workload", "token": "x" * 16_385},
        {"type": "access_token", "token": 1},
    ],
)
def test_proof_of_no_known_kind_is_refused(site: Site, service: Service, proof: object) -> None:
    """An unknown kind, or a known one with other members, is a request that does not fit: said, and not guessed at."""
    answer = ask(site, {"csr": make_csr(keys.generate(Algorithm.P256)), "proof": proof})
    refused(answer, "body-malformed")
    assert answer.status_code == 400


@pytest.mark.parametrize(
    ("kind", "code"),
    [("access_token", "kind-not-allowed"), ("workload", "kind-not-allowed"), ("client_assertion", "unknown-issuer")],
)
def test_token_of_one_kind_is_no_proof_of_another(site: Site, service: Service, kind: str, code: str) -> None:
    """A good ID token, sent as something else, proves nothing, and is not used up by the attempt."""
    body = site.body("alice", keys.generate(Algorithm.P256))
    refused(ask(site, body | {"proof": {"type": kind, "token": body["proof"]["token"]}}), code)
    assert ask(site, body).status_code == 201


TEXTS = st.text(max_size=40) | st.sampled_from(["", "a.b.c", "..", "\ud800", "e30.e30.e30", "-", "A" * 22, "x" * 16_384])
CLAIMS = st.dictionaries(
    st.sampled_from(
        ["iss", "sub", "aud", "exp", "iat", "nbf", "nonce", "cnf", "jti", "azp", "acr", "amr", "auth_time", "email"]
    ),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8) | st.just("ISSUER"),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["jkt", "jwk", "kty", "x"]), inner, max_size=3)
        ),
        max_leaves=6,
    ),
)
PROOFS = st.fixed_dictionaries(
    {"type": st.sampled_from(["id_token", "access_token", "workload", "client_assertion", "code", "login", "other", 1])},
    optional=dict.fromkeys(("token", "salt", "issuer", "code", "login", "secret", "more"), TEXTS),
)


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(proof=PROOFS, claims=CLAIMS, signed=st.booleans())
def test_proof_of_any_shape_is_refused_with_a_code(
    site: Site, service: Service, proof: dict[str, Any], claims: dict[str, Any], signed: bool
) -> None:
    """Whatever stands in a proof, also in claims that the provider did sign: a problem with a code, and no fault of ours."""
    if signed:
        known = {name: site.provider.issuer if value == "ISSUER" else value for name, value in claims.items()}
        proof = {"type": proof["type"], "token": site.provider_key.sign({"iss": site.provider.issuer, **known})}
    answer = service_answer(site, {"csr": CSR, "proof": proof})
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.status_code in (400, 401, 403, 404, 409, 413, 503), answer.text
    assert answer.json()["code"] != "internal"


CSR = make_csr(keys.generate(Algorithm.P256))


def service_answer(site: Site, body: dict[str, Any]) -> httpx2.Response:
    """The answer to a body that may hold what has no UTF-8 form: JSON can say it, in ASCII."""
    with site.client() as client:
        return client.post("/v1/certificates", content=json.dumps(body).encode("ascii"))


# --- tokens --------------------------------------------------------------------------------------------------------------


def test_token_is_bound_to_the_certificate_and_carries_the_enrolled_rights(
    site: Site, service: Service, alice: Identity
) -> None:
    """A token names the certificate of the connection it was asked on, and what the enrolment holds for that service."""
    with site.client(alice) as client:
        answer = client.post("/v1/tokens", json={"audience": "files"})
    assert answer.status_code == 201, answer.text
    root = service.authority.bundle.token_roots[0]
    trusted = TrustedTokenKey(kid=root.kid, key=root.key, issuer=f"spiffe://{DOMAIN}", domain=service.authority.domain)
    token = verify(answer.json()["token"], {root.kid: trusted})
    assert str(token.user) == f"spiffe://{DOMAIN}/user/alice"
    assert {tuple(right) for right in token.rights} == {
        ("files", "read", "/alice/"),
        ("files", "write", "/alice/"),
        ("files", "read", "/shared/"),
    }
    assert (token.groups, token.roles, token.projects) == (("staff",), ("scientist",), ("p7",))
    checked = check(Receipt.from_dict(answer.json()["receipt"]), VerifierKey.parse(service.authority.bundle.log_vkey))
    assert checked.record["grant"]["jti"] == token.jti
    assert checked.record["actor"]["peer"] == alice.fingerprint


def test_token_request_can_only_narrow(site: Site, service: Service, alice: Identity) -> None:
    """A wish within what is held is granted as wished; a wish beyond it is refused whole."""
    with site.client(alice) as client:
        narrow = client.post(
            "/v1/tokens", json={"audience": "files", "rights": [{"operation": "read", "path": "/alice/run7/"}]}
        )
        beyond = client.post("/v1/tokens", json={"audience": "files", "rights": [{"operation": "read", "path": "/bob/"}]})
        elsewhere = client.post("/v1/tokens", json={"audience": "archive"})
        longer = client.post("/v1/tokens", json={"audience": "files", "lifetime": 300 * 86400})
    assert narrow.json()["rights"] == [{"operation": "read", "path": "/alice/run7/"}]
    refused(beyond, "right-not-held")
    refused(elsewhere, "audience-unknown")
    assert longer.json()["clamped"]["granted"] <= 12 * 3600


def test_token_is_never_stored_or_logged(site: Site, service: Service, alice: Identity) -> None:
    """The database holds the token's hash; its text is nowhere below the facility's directory."""
    with site.client(alice) as client:
        token = client.post("/v1/tokens", json={"audience": "files"}).json()["token"]
    for path in site.directory.rglob("*"):
        if path.is_file():
            assert token.encode()[:60] not in path.read_bytes(), path


def test_token_request_is_not_answered_twice(site: Site, service: Service, alice: Identity) -> None:
    """A token is not kept, so a repeated request id is refused rather than answered with another token."""
    body = {"audience": "files", "request_id": "token-once-0001"}
    with site.client(alice) as client:
        assert client.post("/v1/tokens", json=body).status_code == 201
        refused(client.post("/v1/tokens", json=body), "request-id-used")


def test_nobody_gets_a_token_without_a_certificate(site: Site, service: Service) -> None:
    """The token endpoint answers nobody who shows no certificate."""
    with site.client() as client:
        answer = client.post("/v1/tokens", json={"audience": "files"})
    assert answer.status_code == 401
    assert answer.json()["code"] == "certificate-required"


@pytest.mark.parametrize("right", [{"operation": "read", "path": "../etc"}, {"operation": "Read!", "path": "/x"}])
def test_right_with_two_readings_is_refused(site: Site, service: Service, alice: Identity, right: dict[str, str]) -> None:
    """A path that climbs, or an operation that is none, is refused as a request."""
    with site.client(alice) as client:
        answer = client.post("/v1/tokens", json={"audience": "files", "rights": [right]})
    assert answer.status_code == 400


# --- revocations ---------------------------------------------------------------------------------------------------------


def test_owner_revokes_a_certificate_and_it_stops_working_at_once(site: Site, service: Service) -> None:
    """A person withdraws their own certificate: the feed says so, and the signer's own door refuses it."""
    lost = site.log_in("alice")
    with site.client(lost) as client:
        assert client.post("/v1/tokens", json={"audience": "files"}).status_code == 201
        body = {"kind": "certificate", "value": lost.fingerprint, "reason": "laptop lost"}
        done = client.post("/v1/revocations", json=body)
        assert done.status_code == 201, done.text
        answer = client.post("/v1/tokens", json={"audience": "files"})
        assert (answer.status_code, answer.json()["code"]) == (401, "certificate-revoked")
        feed = open_feed(
            client.get("/v1/revocations").content,
            key=service.authority.bundle.feed_key,
            domain=service.authority.domain,
            newest_sequence=0,
            now=site.clock(),
        )
    assert lost.fingerprint in {entry.value for entry in feed.entries}
    assert entries(service)[-1]["revoke"]["reason"] == "laptop lost"


def test_owner_revokes_a_token_by_its_id(site: Site, service: Service, alice: Identity) -> None:
    """A person withdraws a token of their own."""
    with site.client(alice) as client:
        jti = client.post("/v1/tokens", json={"audience": "files"}).json()["jti"]
        assert client.post("/v1/revocations", json={"kind": "jti", "value": jti, "reason": "done"}).status_code == 201


@pytest.mark.parametrize("kind", ["certificate", "jti", "principal", "kid", "block"])
def test_nobody_revokes_what_is_not_theirs(site: Site, service: Service, alice: Identity, kind: str) -> None:
    """Somebody else's, a whole principal's, a key's and an unknown credential's revocation is refused, and recorded."""
    bob = site.log_in("bob")
    values = {"certificate": bob.fingerprint, "principal": f"spiffe://{DOMAIN}/user/bob", "kid": "00000000"}
    body = {"kind": kind, "value": values.get(kind, "0" * 32), "reason": "mischief"}
    with site.client(alice) as client:
        refused(client.post("/v1/revocations", json=body), "not-yours")
    assert "not-yours" in {entry["decision"]["code"] for entry in entries(service) if entry["kind"] == "grant.deny"}


# --- what everybody may read ---------------------------------------------------------------------------------------------


def test_public_documents(site: Site, service: Service) -> None:
    """Metadata, bundle, checkpoint, health and metrics are there for everybody; nothing else is."""
    with site.client() as client:
        metadata = client.get("/.well-known/certauth").json()
        assert metadata["signer"] == site.url
        assert metadata["issuers"][0]["url"] == site.provider.issuer
        assert client.get("/.well-known/certauth/bundle").content == (site.directory / "bundle.json").read_bytes()
        assert client.get("/v1/log/checkpoint").text.startswith(f"{DOMAIN}/certauth/log\n")
        assert client.get("/livez").json()["status"] == "ok"
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["ready"]) == (200, True)
        assert "signer_requests_total" in client.get("/metrics").text
        begun = {"csr": make_csr(keys.generate(Algorithm.P256)), "host": "h", "secret_sha256": "0" * 64}
        assert client.post("/v1/logins", json=begun).json()["code"] == "issuer-unavailable"  # it has no endpoints for one
        assert "signer_logins_under_way 0.0" in client.get("/metrics").text
        assert client.get("/anything").json()["code"] == "no-route"
        assert client.delete("/v1/certificates").json()["code"] == "no-route"


def test_log_verifies_after_all_of_this(site: Site, service: Service) -> None:
    """Everything above left a log that verifies from its first entry to its signed head."""
    with service.store.log() as reader:
        report = verify_log(
            reader.entries(), note=reader.checkpoint() or "", vkey=VerifierKey.parse(service.authority.bundle.log_vkey)
        )
    assert report.checkpoint.size == service.ledger.status().size


def test_serial_numbers_and_salts_differ(site: Site, service: Service) -> None:
    """Two grants share neither serial nor commitment: the same person cannot be recognised by hashing guesses."""
    for _ in range(3):
        site.log_in("alice")
    grants = [entry for entry in entries(service) if entry["kind"] == "grant.cert"]
    assert len({grant["grant"]["serial"] for grant in grants}) == len(grants) > 3
    assert len({grant["actor"]["sub_c"] for grant in grants}) == len(grants)
