"""OAuth's endpoints on the live service: what clients and services that only speak OAuth get, and what thieves do not."""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import jwt as pyjwt
import pytest
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import KeySet as JoserfcKeys

from certauth import keys, tokens
from certauth.audit import receipt as receipts
from certauth.audit.checkpoint import VerifierKey
from certauth.audit.receipt import Receipt
from certauth.certificates import load_chain
from certauth.errors import Refused
from certauth.tokens import Narrowing, attenuate, delegate, from_text, to_text
from certauth.tokens.blocks import Block
from certauth.tokens.conditions import Paths
from signer import revoking
from signer.oauth import ACCESS_TOKEN, EXCHANGE, JWT, error_of
from signer.service import Service
from tests.certauth.tokens.kit import with_block
from tests.signer.kit import Identity, Site, facility, run_cli

GRANTS = """
jwt_services = ["data", "files"]

[[grant]]
group = "beamline-7"
service = "files"
operations = ["read"]
path = "/runs/"
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A facility whose group beamline-7 may read runs, and which makes JWTs for two services."""
    with facility(tmp_path_factory.mktemp("oauth")) as made:
        text = made.settings_file.read_text()
        head, tables = GRANTS.split("\n\n", 1)
        made.settings_file.write_text(f"{head.strip()}\n{text}\n{tables}")
        made.enroll("alice", "data:read,write:/data/", "data:read:/exact", "other:read:/x", group="beamline-7")
        made.enroll("bob", "data:read:/data/bob/")
        yield made


@pytest.fixture(scope="module")
def service(site: Site) -> Iterator[Service]:
    """The service, serving."""
    with site.serving() as running:
        yield running


@pytest.fixture(scope="module")
def alice(site: Site, service: Service) -> Identity:
    """Alice, logged in."""
    return site.log_in("alice")


@pytest.fixture(scope="module")
def bob(site: Site, service: Service) -> Identity:
    """Bob, logged in."""
    return site.log_in("bob")


def post(site: Site, who: Identity | None, path: str, **form: str) -> tuple[int, Any]:
    """What a form leads to: status and JSON (``None`` for an empty body)."""
    with site.client(who) as client:
        answer = client.post(path, data=form)
    return answer.status_code, answer.json() if answer.content else None


def token(site: Site, who: Identity, *, kind: str = ACCESS_TOKEN, audience: str = "data", **form: str) -> dict[str, Any]:
    """A token, which must be granted."""
    form = {"grant_type": "client_credentials", "audience": audience, "requested_token_type": kind} | form
    status, answer = post(site, who, "/token", **form)
    assert status == 200, answer
    return dict(answer)


def exchanged(site: Site, who: Identity, subject: str, **form: str) -> tuple[int, Any]:
    """What exchanging ``subject`` leads to."""
    defaults = {"grant_type": EXCHANGE, "audience": "data", "requested_token_type": JWT, "subject_token_type": ACCESS_TOKEN}
    return post(site, who, "/token", subject_token=subject, **(defaults | form))


def claims_of(text: str) -> dict[str, Any]:
    """The claims of a JWT, unverified."""
    part = text.split(".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))))


def jwks(site: Site) -> dict[str, Any]:
    """The facility's JWK set, found as a client finds it."""
    with site.client() as client:
        document = client.get("/.well-known/oauth-authorization-server").json()
        assert document["issuer"] == site.url
        return dict(client.get(document["jwks_uri"].removeprefix(site.url)).json())


# --- granting -----------------------------------------------------------------------------------------------------------


def test_a_client_gets_a_biscuit_for_its_certificate(site: Site, service: Service, alice: Identity) -> None:
    """The OAuth way leads to the same token as ``/v1/tokens``: verified, bound, recorded, with its receipt."""
    answer = token(site, alice, scope="read:/data/run7/", lifetime="600")
    found = tokens.verify(answer["access_token"], service.keys.roots)
    assert (found.holder, found.rights) == (alice.fingerprint, (("data", "read", "/data/run7/"),))
    assert (answer["token_type"], answer["issued_token_type"], answer["scope"]) == ("Bearer", ACCESS_TOKEN, "read:/data/run7/")
    assert answer["expires_in"] == 600
    receipt = Receipt.from_dict(answer["receipt"])
    checked = receipts.check(receipt, VerifierKey.parse(service.authority.bundle.log_vkey))
    assert checked.record["grant"]["token"] == found.digest  # type: ignore[index]  # a grant has members


def test_rights_come_from_a_group(site: Site, service: Service, alice: Identity, bob: Identity) -> None:
    """What the facility gives to a group its members have, and nobody else."""
    found = tokens.verify(token(site, alice, audience="files")["access_token"], service.keys.roots)
    assert found.rights == (("files", "read", "/runs/"),)
    status, answer = post(site, bob, "/token", grant_type="client_credentials", audience="files")
    assert (status, answer["error"], answer["code"]) == (400, "invalid_target", "audience-unknown")


def test_a_jwt_is_verified_by_libraries_that_know_nothing_of_us(site: Site, alice: Identity) -> None:
    """Joserfc and PyJWT verify it under the published keys; it says who, where, what, until when, and whose certificate."""
    answer = token(site, alice, kind=JWT)
    text, published = answer["access_token"], jwks(site)
    theirs = joserfc_jwt.decode(text, JoserfcKeys.import_key_set(published), algorithms=["ES256"])
    options = pyjwt.PyJWKSet.from_dict(published).keys[0]
    claims = pyjwt.decode(text, options, algorithms=["ES256"], audience="data", issuer=site.url)
    assert dict(theirs.claims) == claims
    assert (theirs.header["typ"], theirs.header["alg"]) == ("at+jwt", "ES256")
    assert claims["sub"] == claims["client_id"] == "spiffe://facility.test/user/alice"
    thumbprint = base64.urlsafe_b64encode(bytes.fromhex(alice.fingerprint)).rstrip(b"=").decode()
    assert claims["cnf"] == {"x5t#S256": thumbprint}
    assert claims["exp"] - claims["iat"] == 3600
    assert "act" not in claims
    with pytest.raises(pyjwt.InvalidAudienceError):
        pyjwt.decode(text, options, algorithms=["ES256"], audience="files", issuer=site.url)
    changed = text[:-2] + ("AA" if text[-2:] != "AA" else "BB")
    with pytest.raises(pyjwt.InvalidSignatureError):
        pyjwt.decode(changed, options, algorithms=["ES256"], audience="data", issuer=site.url)


def test_scopes_of_a_jwt_are_never_wider_than_its_rights(site: Site, alice: Identity) -> None:
    """A right to one path is in ``authorization_details`` only: as a scope it would reach below that path."""
    claims = claims_of(token(site, alice, kind=JWT)["access_token"])
    assert set(claims["scope"].split()) == {"read:/data", "write:/data"}
    assert {"type": "certauth-right", "locations": ["data"], "actions": ["read"], "path": "/exact"} in claims[
        "authorization_details"
    ]


SCITOKENS = """
import sys, json, scitokens, jwt
text, issuer, keys = sys.stdin.read().split()
from jwt import PyJWKSet
key = PyJWKSet.from_dict(json.loads(bytes.fromhex(keys))).keys[0].key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
token = scitokens.SciToken.deserialize(text, audience=["data"], public_key=pem)
enforcer = scitokens.Enforcer(issuer, audience="data")
print(json.dumps([enforcer.test(token, operation, path) for operation, path in
    [("read", "/data/run7"), ("write", "/data/x"), ("read", "/exact"), ("read", "/database"), ("delete", "/data/x")]]))
"""


def test_scitokens_enforces_a_jwt(site: Site, alice: Identity) -> None:
    """The library of another community reads our scopes as we mean them."""
    text = token(site, alice, kind=JWT)["access_token"]
    given = f"{text} {site.url} {json.dumps(jwks(site)).encode().hex()}"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCITOKENS], input=given, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [True, True, False, False, False]


def test_an_openid_library_finds_the_keys(site: Site, alice: Identity) -> None:
    """Libraries that only look for OpenID's document find the same one, over TLS under the facility's root."""
    context = ssl.create_default_context(cafile=str(site.root))
    with urllib.request.urlopen(f"{site.url}/.well-known/openid-configuration", context=context, timeout=20) as answer:
        document = json.load(answer)
    assert document["jwks_uri"] == f"{site.url}/.well-known/jwks.json"
    assert document["tls_client_certificate_bound_access_tokens"] is True


@pytest.mark.parametrize(
    ("form", "error", "code"),
    [
        ({"audience": "data"}, "unsupported_grant_type", "unsupported-grant-type"),
        ({"grant_type": "password"}, "unsupported_grant_type", "unsupported-grant-type"),
        ({"grant_type": "client_credentials"}, "invalid_request", "form-malformed"),
        ({"grant_type": "client_credentials", "audience": "nothing"}, "invalid_target", "audience-unknown"),
        ({"grant_type": "client_credentials", "audience": "data", "scope": "read:/etc/"}, "invalid_scope", "right-not-held"),
        ({"grant_type": "client_credentials", "audience": "data", "scope": "read"}, "invalid_scope", "bad-right"),
        ({"grant_type": "client_credentials", "audience": "data", "scope": "read:/a/../b"}, "invalid_request", "bad-path"),
        ({"grant_type": "client_credentials", "audience": "data", "lifetime": "-1"}, "invalid_request", "form-malformed"),
        ({"grant_type": "client_credentials", "audience": "data", "lifetime": "1e9"}, "invalid_request", "form-malformed"),
        ({"grant_type": "client_credentials", "audience": "data", "client_id": "x"}, "invalid_request", "client-mismatch"),
        ({"grant_type": "client_credentials", "audience": "data", "subject_token": "x"}, "invalid_request", "form-malformed"),
        ({"grant_type": EXCHANGE, "audience": "data"}, "invalid_request", "form-malformed"),
        ({"grant_type": EXCHANGE, "audience": "data", "subject_token": "x"}, "invalid_request", "form-malformed"),
        ({"grant_type": "client_credentials", "audience": "data", "actor_token": "x"}, "invalid_request", "form-malformed"),
        (
            {"grant_type": "client_credentials", "audience": "data", "resource": "https://x"},
            "invalid_target",
            "resource-unknown",
        ),
        (
            {"grant_type": "client_credentials", "audience": "data", "requested_token_type": "urn:x"},
            "invalid_request",
            "form-malformed",
        ),
        (
            {"grant_type": "client_credentials", "audience": "other", "requested_token_type": JWT},
            "invalid_target",
            "jwt-not-offered",
        ),
    ],
)
def test_a_bad_request_is_told_so(site: Site, alice: Identity, form: dict[str, str], error: str, code: str) -> None:
    """Every refusal has OAuth's error and our code, and a sentence."""
    status, answer = post(site, alice, "/token", **form)
    assert (status, answer["error"], answer["code"]) == (400, error, code)
    assert answer["error_description"]


def test_what_an_exchange_would_have_to_ignore_is_refused(site: Site, alice: Identity) -> None:
    """An actor that is not named in the token, a resource that it is not for: both would be believed to be in it."""
    mine = token(site, alice)["access_token"]
    for form, error, code in (
        ({"actor_token": mine, "actor_token_type": ACCESS_TOKEN}, "invalid_request", "form-malformed"),
        ({"actor_token_type": ACCESS_TOKEN}, "invalid_request", "form-malformed"),
        ({"resource": "https://data.facility.test/"}, "invalid_target", "resource-unknown"),
    ):
        status, answer = exchanged(site, alice, mine, **form)
        assert (status, answer["error"], answer["code"]) == (400, error, code)
    assert exchanged(site, alice, mine, resource="data")[0] == 200
    form = {"content-type": "application/x-www-form-urlencoded"}
    with site.client(alice) as client:
        for name in ("resource", "actor_token"):
            twice = client.post("/token", content=f"grant_type=client_credentials&{name}=data&{name}=data", headers=form)
            assert "more than once" in twice.json()["error_description"]


def test_errors_of_the_token_endpoint_are_those_of_the_specification() -> None:
    """RFC 6749 §5.2 knows no ``access_denied``: a client library may not read what it does not know."""
    refused = Refused("address-not-allowed", "not from there")
    assert error_of(refused)["error"] == "unauthorized_client"
    assert error_of(refused, exchange=True)["error"] == "invalid_request"


def test_forms_are_read_strictly(site: Site, alice: Identity) -> None:
    """A repeated parameter, another content type and bytes that are no text are refused, not guessed at."""
    form = {"content-type": "application/x-www-form-urlencoded"}
    with site.client(alice) as client:
        twice = client.post("/token", content=b"grant_type=client_credentials&audience=data&audience=other", headers=form)
        other = client.post("/token", json={"grant_type": "client_credentials", "audience": "data"})
        binary = client.post("/token", content=b"grant_type=%ff&audience", headers=form)
        many = client.post("/token", content=b"&".join(b"a%d=1" % n for n in range(99)), headers=form)
    assert [answer.json()["code"] for answer in (twice, other, binary, many)] == ["form-malformed"] * 4


@pytest.mark.parametrize("path", ["/token", "/introspect", "/revoke"])
def test_nobody_without_a_certificate_is_a_client(site: Site, service: Service, path: str) -> None:
    """There is no client secret; the certificate is the client's authentication."""
    status, answer = post(site, None, path, grant_type="client_credentials", audience="data", token="x")
    assert status == 401
    assert answer["code"] == "certificate-required"


def test_what_is_a_secret_is_in_no_cache_and_in_no_address(site: Site, alice: Identity) -> None:
    """Answers of the three endpoints, good and bad, may not be stored (RFC 6749 §5.1); they take a body and nothing else."""
    form = {"grant_type": "client_credentials", "audience": "data"}
    with site.client(alice) as client:
        granted = client.post("/token", data=form)
        asked = {"token": granted.json()["access_token"]}
        refused = [client.post(path, data={}) for path in ("/token", "/introspect", "/revoke")]
        answers = [granted, client.post("/introspect", data=asked), client.post("/revoke", data=asked), *refused]
        for answer in answers:
            assert (answer.headers["cache-control"], answer.headers["pragma"]) == ("no-store", "no-cache")
        assert [answer.status_code for answer in answers] == [200, 200, 200, 400, 400, 400]
        assert {answer.headers["content-type"] for answer in answers if answer.content} == {"application/json"}
        for path, members in (("/token", form), ("/introspect", asked), ("/revoke", asked)):
            assert client.get(path, params=members).status_code == 403  # the door knows this path for POST only
            assert client.post(path, params=members).json()["code"] == "form-malformed"


# --- exchanging ---------------------------------------------------------------------------------------------------------


def test_an_exchanged_token_says_what_was_left(site: Site, alice: Identity) -> None:
    """A narrowed biscuit becomes a JWT with what the narrowings leave: operations, paths and the earlier end."""
    mine = token(site, alice)["access_token"]
    narrowed = attenuate(mine, Narrowing(operations=("read",), paths=("/data/run7/",)))
    narrowed = attenuate(narrowed, Narrowing(expires_at=site.clock() + timedelta(minutes=10)))
    status, answer = exchanged(site, alice, narrowed)
    assert status == 200, answer
    claims = claims_of(answer["access_token"])
    assert claims["scope"] == "read:/data/run7"
    assert claims["exp"] - claims["iat"] <= 600
    assert exchanged(site, alice, narrowed, scope="write:/data/run7/")[1]["code"] == "right-not-held"
    assert exchanged(site, alice, narrowed, audience="files")[1]["code"] == "audience-unknown"


def test_an_exchange_for_a_biscuit_narrows_too(site: Site, service: Service, alice: Identity) -> None:
    """The new biscuit is not delegable: what was handed on would not end with the token it came from."""
    narrowed = attenuate(token(site, alice)["access_token"], Narrowing(paths=("/data/a",)))
    status, answer = exchanged(site, alice, narrowed, requested_token_type=ACCESS_TOKEN)
    assert status == 200, answer
    found = tokens.verify(answer["access_token"], service.keys.roots)
    assert {right.path for right in found.rights} == {"/data/a"}
    assert found.delegation_depth == 0


def test_a_handed_over_token_is_exchanged_in_its_giver_s_name(site: Site, alice: Identity, bob: Identity) -> None:
    """The JWT is Alice's, in Bob's hands, and says both; another biscuit is not made from it."""
    mine = from_text(token(site, alice)["access_token"])
    handed = to_text(
        delegate(mine, holder_key=alice.key, to_certificate=bob.chain[0], narrowing=Narrowing(paths=("/data/run7/",)))
    )
    status, answer = exchanged(site, bob, handed)
    assert status == 200, answer
    claims = claims_of(answer["access_token"])
    assert (claims["sub"], claims["act"]) == (
        "spiffe://facility.test/user/alice",
        {"sub": "spiffe://facility.test/user/bob"},
    )
    assert claims["scope"] == "read:/data/run7 write:/data/run7"
    assert bytes.fromhex(bob.fingerprint) == base64.urlsafe_b64decode(claims["cnf"]["x5t#S256"] + "=")
    status, answer = exchanged(site, bob, handed, requested_token_type=ACCESS_TOKEN)
    assert (status, answer["error"], answer["code"]) == (400, "invalid_request", "not-exchangeable")
    assert exchanged(site, alice, handed)[1]["code"] == "not-exchangeable"  # no longer in her hands


def test_a_stolen_token_is_not_exchanged(site: Site, alice: Identity, bob: Identity) -> None:
    """Under another certificate a token is worth nothing here either."""
    stolen = token(site, alice)["access_token"]
    for kind in (ACCESS_TOKEN, JWT):
        status, answer = exchanged(site, bob, stolen, requested_token_type=kind)
        assert (status, answer["error"], answer["code"]) == (400, "invalid_request", "not-exchangeable")


def test_what_cannot_be_repeated_is_not_forgotten(site: Site, alice: Identity) -> None:
    """A token narrowed to a network, a number of uses or a body is refused: the new one would be wider."""
    mine = token(site, alice)["access_token"]
    for narrowing in (
        Narrowing(networks=(str(ip_network("10.0.0.0/8")),)),
        Narrowing(max_uses=1),
        Narrowing(body_sha256=hashlib.sha256(b"").hexdigest()),
        Narrowing(projects=("p",)),
    ):
        assert exchanged(site, alice, attenuate(mine, narrowing))[1]["code"] == "not-exchangeable"


def test_an_expired_token_is_not_exchanged(site: Site, alice: Identity) -> None:
    """By the end of a narrowing, even if the issuer's own end is far."""
    ended = attenuate(token(site, alice)["access_token"], Narrowing(expires_at=site.clock() - timedelta(seconds=5)))
    assert exchanged(site, alice, ended)[1]["code"] == "not-exchangeable"
    assert exchanged(site, alice, "biscuit-of-nobody")[1]["code"] == "not-exchangeable"


# --- introspection and revocation ---------------------------------------------------------------------------------------


def introspected(site: Site, who: Identity, text: str) -> dict[str, Any]:
    """What the facility says about a token, to ``who``."""
    status, answer = post(site, who, "/introspect", token=text)
    assert status == 200
    return dict(answer)


@pytest.mark.parametrize("kind", [ACCESS_TOKEN, JWT])
def test_a_token_is_explained_to_its_user_and_nobody_else(site: Site, alice: Identity, bob: Identity, kind: str) -> None:
    """To a stranger it is inactive, like a token that never was."""
    text = token(site, alice, kind=kind)["access_token"]
    told = introspected(site, alice, text)
    assert told["active"] is True
    assert (told["sub"], told["aud"]) == ("spiffe://facility.test/user/alice", ["data"])
    assert told["exp"] > site.clock().timestamp()
    assert introspected(site, bob, text) == {"active": False}
    for garbage in ("x", text[:-8], text + "A", "\u00e9"):
        assert introspected(site, alice, garbage) == {"active": False}


def test_the_holder_and_the_service_are_told(site: Site, alice: Identity, bob: Identity, tmp_path: Path) -> None:
    """Whoever holds it now, and the service it is for; not another service."""
    mine = from_text(token(site, alice)["access_token"])
    handed = to_text(delegate(mine, holder_key=alice.key, to_certificate=bob.fingerprint, narrowing=Narrowing()))
    assert introspected(site, bob, handed)["active"] is True
    for name, active in (("data", True), ("files", False)):
        place = tmp_path / name
        run_cli(
            *("service", "certificate", name, "--host", "localhost", "--directory", place),
            *("--reason", "a test", "--settings", site.settings_file),
        )
        assert introspected(site, identity_in(place), handed)["active"] is active


def identity_in(place: Path) -> Identity:
    """The certificate and key in a directory."""
    key = keys.load_private(place / "key.pem", passphrase=None, allow_example_keys=False)
    return Identity(key=key, chain=load_chain((place / "chain.pem").read_bytes()))


@pytest.mark.parametrize("kind", [ACCESS_TOKEN, JWT])
def test_a_revoked_token_is_inactive(site: Site, alice: Identity, bob: Identity, kind: str) -> None:
    """RFC 7009: its holder withdraws it; a stranger's attempt is answered alike and changes nothing."""
    text = token(site, alice, kind=kind)["access_token"]
    assert post(site, bob, "/revoke", token=text) == (200, None)
    assert introspected(site, alice, text)["active"] is True
    assert post(site, alice, "/revoke", token=text) == (200, None)
    assert introspected(site, alice, text) == {"active": False}
    assert post(site, alice, "/revoke", token=text) == (200, None)
    assert post(site, alice, "/revoke", token="garbage") == (200, None)
    assert post(site, alice, "/revoke")[1]["code"] == "form-malformed"
    if kind == ACCESS_TOKEN:
        assert exchanged(site, alice, text)[1]["code"] == "not-exchangeable"


def test_a_part_of_a_token_is_revoked_by_who_holds_it(site: Site, alice: Identity, bob: Identity) -> None:
    """Bob withdraws what was handed to him, and Alice's own token goes on."""
    mine = token(site, alice)["access_token"]
    handed = to_text(
        delegate(from_text(mine), holder_key=alice.key, to_certificate=bob.fingerprint, narrowing=Narrowing(paths=("/data/",)))
    )
    block = tokens.block_ids(from_text(handed))[-1]
    request = {"kind": "block", "value": block, "reason": "done"}
    with site.client(bob) as client:
        assert client.post("/v1/revocations", json=request).json()["code"] == "not-yours"
        assert client.post("/v1/revocations", json=request | {"token": mine}).json()["code"] == "not-yours"
        assert client.post("/v1/revocations", json=request | {"token": handed}).status_code == 201
    assert introspected(site, bob, handed) == {"active": False}
    assert introspected(site, alice, mine)["active"] is True


def test_a_reason_that_cannot_be_recorded_is_told(site: Site, alice: Identity) -> None:
    """It is the client's mistake, and nothing is withdrawn; without it the token is."""
    text = token(site, alice)["access_token"]
    for reason in ("a\nb", "\x1b[2J"):
        status, answer = post(site, alice, "/revoke", token=text, reason=reason)
        assert (status, answer["error"], answer["code"]) == (400, "invalid_request", "revocation-invalid")
        with site.client(alice) as client:
            own = {"kind": "certificate", "value": alice.fingerprint, "reason": reason}
            assert client.post("/v1/revocations", json=own).json()["code"] == "revocation-invalid"
    assert introspected(site, alice, text)["active"] is True
    assert post(site, alice, "/revoke", token=text, reason="é" * 300) == (200, None)
    assert introspected(site, alice, text) == {"active": False}


def test_a_token_that_another_facility_vouched_for_is_still_its_users(site: Site, alice: Identity) -> None:
    """The signer lets nobody in by an attestation, so it need not know who gave it: it explains and revokes such a token."""
    mine = from_text(token(site, alice)["access_token"])
    answer = tokens.attest(
        tokens.request_attestation(mine),
        key=keys.generate(keys.Algorithm.ED25519),
        groups=["run7"],
        expires_at=site.clock() + timedelta(hours=1),
    )
    vouched = to_text(tokens.append_attestation(mine, answer))
    assert introspected(site, alice, vouched)["active"] is True
    assert exchanged(site, alice, vouched)[0] == 200
    assert post(site, alice, "/revoke", token=vouched) == (200, None)
    assert introspected(site, alice, vouched) == {"active": False}
    assert introspected(site, alice, to_text(mine))["active"] is True


def test_the_holder_of_a_sub_token_revokes_only_that(site: Site, alice: Identity) -> None:
    """A narrowed token of one's own is withdrawn without the one it was made from."""
    mine = token(site, alice)["access_token"]
    narrowed = attenuate(mine, Narrowing(paths=("/data/x",)))
    assert post(site, alice, "/revoke", token=narrowed) == (200, None)
    assert introspected(site, alice, narrowed) == {"active": False}
    assert introspected(site, alice, mine)["active"] is True


def test_every_grant_and_refusal_is_in_the_log(site: Site, service: Service, alice: Identity, bob: Identity) -> None:
    """A JWT by its hash and form, a refused exchange by its code; no token text anywhere in the database."""
    text = token(site, alice, kind=JWT)["access_token"]
    stolen = token(site, alice)["access_token"]
    exchanged(site, bob, stolen)
    with service.store.log() as reader:
        entries = [json.loads(entry.body) for entry in reader.entries(0)]
    granted = [entry["grant"] for entry in entries if entry["kind"] == "grant.token"]
    assert any(
        one["form"] == "jwt" and one["token"] == hashlib.sha256(text.encode()).hexdigest() and "block" not in one
        for one in granted
    )
    denied = [entry["decision"] for entry in entries if entry["kind"] == "grant.deny"]
    assert {"operation": "exchange", "code": "not-exchangeable"} in denied
    raw = b"".join(path.read_bytes() for path in site.directory.glob("signer.db*"))
    assert text.encode() not in raw
    assert stolen.encode() not in raw


# --- what a holder writes into a narrowing ---


def test_a_space_in_a_path_is_not_another_scope(site: Site, service: Service, alice: Identity) -> None:
    """Scopes are separated by spaces: a narrowing to ``/data/x write:/etc/`` would be read as the right to write ``/etc``."""
    mine = token(site, alice, scope="read:/data/")["access_token"]
    sly = attenuate(mine, Narrowing(paths=("/data/x write:/etc/", "/data/run7/")))
    status, answer = exchanged(site, alice, sly)
    assert status == 200, answer
    claims = claims_of(answer["access_token"])
    assert (claims["scope"], answer["scope"]) == ("read:/data/run7", "read:/data/run7/")
    paths = [one["path"] for one in claims["authorization_details"]]
    assert sorted(paths) == ["/data/run7/", "/data/x write:/etc/"], "there it is one path, whatever is in it"
    assert introspected(site, alice, sly)["scope"] == "read:/data/run7"
    with site.client(alice) as client:
        right = {"operation": "read", "path": "/data/x write:/etc/"}
        minted = client.post("/v1/tokens", json={"audience": "data", "rights": [right]}).json()["token"]
    assert introspected(site, alice, minted)["scope"] == ""
    assert claims_of(exchanged(site, alice, minted)[1]["access_token"])["scope"] == ""


@pytest.mark.parametrize(
    "path", ["/data/../etc/", "/data/%2e%2e/etc/", "/data/..\\etc/", "/data//etc/", "/data/?x=/", "/data/*/"]
)
def test_a_path_of_two_readings_is_told_to_nobody(site: Site, alice: Identity, path: str) -> None:
    """A door finds nothing at such a path; a service that resolves dots or escapes would find another one."""
    mine = from_text(token(site, alice)["access_token"])
    sly = to_text(with_block(mine, Block(3, checks=(Paths((path,)),))))
    assert introspected(site, alice, sly) == {"active": False}
    for kind in (JWT, ACCESS_TOKEN):
        status, answer = exchanged(site, alice, sly, requested_token_type=kind)
        assert (status, answer["code"]) == (400, "not-exchangeable")


# --- what an exchange must not add --------------------------------------------------------------------------------------


def test_a_jwt_ends_with_the_token_it_was_made_from(site: Site, alice: Identity) -> None:
    """Withdrawing the biscuit ends the JWT at introspection, also when only the part that was shown is withdrawn."""
    whole = token(site, alice)["access_token"]
    part = attenuate(whole, Narrowing(paths=("/data/x",)))
    of_whole, of_part = (exchanged(site, alice, text)[1]["access_token"] for text in (whole, part))
    assert post(site, alice, "/revoke", token=part) == (200, None)
    assert (introspected(site, alice, of_whole)["active"], introspected(site, alice, of_part)["active"]) == (True, False)
    assert post(site, alice, "/revoke", token=whole) == (200, None)
    assert introspected(site, alice, of_whole) == {"active": False}


def test_introspection_says_what_narrowings_left(site: Site, alice: Identity) -> None:
    """A service that goes by the answer must not be told more than the token allows; what no scope can say is inactive."""
    whole = token(site, alice)["access_token"]
    told = introspected(site, alice, attenuate(whole, Narrowing(operations=("read",), paths=("/data/run7/",))))
    assert told["scope"] == "read:/data/run7"
    assert [one["path"] for one in told["authorization_details"]] == ["/data/run7/"]
    assert introspected(site, alice, attenuate(whole, Narrowing(max_uses=1))) == {"active": False}


@pytest.mark.parametrize("kind", [ACCESS_TOKEN, JWT])
def test_introspection_gives_no_scope_for_one_path(site: Site, alice: Identity, kind: str) -> None:
    """A reader of SciTokens takes every scope for a subtree: ``/exact`` would become all below it, in either form."""
    told = introspected(site, alice, token(site, alice, kind=kind, scope="read:/data/run7/ read:/exact")["access_token"])
    assert told["scope"] == "read:/data/run7"
    assert sorted(one["path"] for one in told["authorization_details"]) == ["/data/run7/", "/exact"]
    for path in ("/exact", "/data/x"):
        one = token(site, alice, scope="read:/exact read:/data/")["access_token"]
        assert introspected(site, alice, attenuate(one, Narrowing(paths=(path,))))["scope"] == ""


def test_an_exchange_adds_no_membership_and_no_certainty(site: Site, alice: Identity, bob: Identity) -> None:
    """What Alice became after she had handed her token over is not in what Bob makes of it."""
    weak = site.log_in("alice")  # the token comes from a login before the change
    mine = from_text(token(site, weak)["access_token"])
    handed = to_text(delegate(mine, holder_key=weak.key, to_certificate=bob.fingerprint, narrowing=Narrowing()))
    site.enroll("alice", "data:read,write:/data/", "data:read:/exact", "other:read:/x", group="beamline-8")
    try:
        claims = claims_of(exchanged(site, bob, handed)[1]["access_token"])
        assert "groups" not in claims
        assert claims["assurance"] <= 2
    finally:
        site.enroll("alice", "data:read,write:/data/", "data:read:/exact", "other:read:/x", group="beamline-7")
    assert claims_of(exchanged(site, bob, handed)[1]["access_token"])["groups"] == ["beamline-7"]


def test_who_may_not_ask_does_not_ask_for_others(site: Site, alice: Identity) -> None:
    """A disabled holder gets nothing for the token that was handed to them."""
    site.enroll("carol", "data:read:/data/carol/")
    carol = site.log_in("carol")
    mine = from_text(token(site, alice)["access_token"])
    handed = to_text(delegate(mine, holder_key=alice.key, to_certificate=carol.fingerprint, narrowing=Narrowing()))
    assert exchanged(site, carol, handed)[0] == 200
    run_cli("user", "disable", "carol", "--reason", "left", "--settings", site.settings_file)
    assert exchanged(site, carol, handed)[0] != 200


def test_a_user_who_is_disabled_does_not_make_the_client_unknown(site: Site, bob: Identity) -> None:
    """Whoever shows the token of somebody who left is told about that token: the client itself was authenticated."""
    site.enroll("erin", "data:read:/data/erin/")
    erin = site.log_in("erin")
    mine = from_text(token(site, erin)["access_token"])
    handed = to_text(delegate(mine, holder_key=erin.key, to_certificate=bob.fingerprint, narrowing=Narrowing()))
    assert exchanged(site, bob, handed)[0] == 200
    run_cli("user", "disable", "erin", "--reason", "left", "--settings", site.settings_file)
    status, answer = exchanged(site, bob, handed)
    assert (status, answer["error"]) == (400, "invalid_request")


def test_withdrawals_of_single_tokens_are_bounded(site: Site, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody fills the feed that every door carries: beyond a number there is the token, or certificate, it all comes from."""
    monkeypatch.setattr(revoking, "MAX_TOKENS", 2)
    site.enroll("dave", "data:read:/data/bob/")
    dave = site.log_in("dave")
    whole = token(site, dave)["access_token"]
    for name in "ab":
        assert post(site, dave, "/revoke", token=attenuate(whole, Narrowing(paths=(f"/data/bob/{name}",))))[0] == 200
    status, answer = post(site, dave, "/revoke", token=attenuate(whole, Narrowing(paths=("/data/bob/c",))))
    assert (status, answer["code"]) == (400, "too-many-revocations")
    with site.client(dave) as client:
        mine = {"kind": "certificate", "value": dave.fingerprint, "reason": "everything"}
        assert client.post("/v1/revocations", json=mine).status_code == 201
