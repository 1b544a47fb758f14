"""Debian's glewlwyd, a provider written in C that shares no code with the others: logins of every kind, thefts, and quirks.

The client is a process of its own, the signer the real one over real TLS. Two issuers of the same provider are configured:
``glewlwyd``, strictly, and ``lax``, which also takes tokens that are bound to no key.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx2
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from certauth import certificates, keys
from certauth.clock import system_clock
from certauth.encoding import b64url
from certauth.errors import ProofError
from certauth.identity import Binding, BoundKey, Issuer, KeySet, ProofKind, VerifiedIdentity, read_proof, verify_id_token
from certauth.keys import Algorithm, SoftwareKey
from tests.demo.stage import CERTAUTH, ROOT
from tests.signer.kit import DOMAIN, Site, facility, make_csr, run_cli
from tests.signer.login_kit import Person
from tests.simulator import glewlwyd as glw
from tests.simulator.node_provider import DpopKey
from tests.simulator.second_opinion import second_opinion

SECONDS = 120
PIPELINE = "pipeline"
TYPE_CODE = re.compile(r"type this code:  ([A-Z0-9-]+)")
RULES = """
[[issuer.rule]]
name = "its users"
when.everyone = true
subject = "user/{issuer}-{{claim:/preferred_username}}"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A facility whose users log in at glewlwyd. ``port`` is the one at which its client may wait for an answer."""

    site: Site
    op: glw.GlewlwydProvider
    lax: glw.GlewlwydProvider
    pipeline: DpopKey
    port: int

    def bound(self, key: SoftwareKey, salt: bytes | None = None) -> BoundKey:
        """``key`` as proofs for this signer are bound to it."""
        return BoundKey(signer_id=self.site.url, spki=keys.spki(key.public_key), salt=salt)

    def ask(self, key: SoftwareKey, type_: str, token: str, **more: str) -> httpx2.Response:
        """``POST /v1/certificates`` for this key, with this proof."""
        body = {"csr": make_csr(key), "proof": {"type": type_, "token": token, **more}}
        with self.site.client() as client:
            return client.post("/v1/certificates", json=body)

    def login(self, home: Path, *words: object, status: int = 0) -> dict[str, Any]:
        """``certauth login`` with Alice's browser; what it came to."""
        browser = f"{sys.executable} -m tests.simulator.glewlwyd --user alice --ca-file {self.op.ca_file}"
        trusted = ("--ca-file", self.site.root, "--ca-file", self.op.ca_file)
        return run(home, "login", self.site.url, *trusted, "--browser-command", browser, *words, status=status)


def run(home: Path, *words: object, status: int = 0) -> dict[str, Any]:
    """``certauth … --json``; its result, or its error."""
    done = subprocess.run(
        [str(word) for word in (CERTAUTH, *words, "--json")],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "CERTAUTH_HOME": str(home)},
        cwd=ROOT,
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout) if status == 0 else json.loads(done.stderr.splitlines()[-1])["error"]
    return found


def add_issuer(site: Site, name: str, op: glw.GlewlwydProvider, **more: object) -> None:
    """One more provider in the settings."""
    members: dict[str, object] = {"id": name, "url": op.issuer, "client_id": op.client_id, "ca_file": str(op.ca_file)}
    members |= {"algorithms": ["ES256"], "enrolment": "open", "access_token_audience": glw.AUDIENCE, "own_callback": True}
    members |= {"kinds": ["id_token", "access_token"], **more}
    table = "".join(f"{key} = {json.dumps(value)}\n" for key, value in members.items())
    with site.settings_file.open("a") as file:
        file.write(f"\n[[issuer]]\n{table}{RULES.format(issuer=name)}")


@contextlib.contextmanager
def kept_port() -> Iterator[int]:
    """A port of 127.0.0.1 that the system gives to nobody meanwhile, and at which a server can listen all the same."""
    with socket.socket() as keeper:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeper.bind(("127.0.0.1", 0))
        yield int(keeper.getsockname()[1])


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The facility, served."""
    directory = tmp_path_factory.mktemp("glewlwyd")
    with contextlib.ExitStack() as running:
        op = running.enter_context(glw.glewlwyd_provider(directory / "op"))
        site, pipeline = running.enter_context(facility(directory)), DpopKey()
        port = running.enter_context(kept_port())
        redirects = [glw.REDIRECT, f"http://127.0.0.1:{port}/callback", f"{site.url}/login/callback/glewlwyd"]
        op.register(glw.public_client(redirect_uris=redirects))
        op.register(glw.service_client(PIPELINE, {**pipeline.jwk, "kid": "p-1", "alg": "ES256"}))
        lax = op.open("lax")
        add_issuer(site, "glewlwyd", op, bindings=["nonce", "dpop"], device=True)
        unbound = {"bindings": ["nonce", "dpop", "none"], "assurance": 1, "authorized_parties": [PIPELINE]}
        add_issuer(site, "lax", lax, **unbound)
        running.enter_context(site.serving())
        yield Place(site=site, op=op, lax=lax, pipeline=pipeline, port=port)


def new_key() -> tuple[SoftwareKey, DpopKey]:
    """One key, as ours and as the one that makes DPoP proofs."""
    key = keys.generate(Algorithm.P256)
    return key, DpopKey(cast("ec.EllipticCurvePrivateKey", key.private_key))


def refused(answer: httpx2.Response, status: int, code: str) -> None:
    """A problem document with a stable code."""
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


def certified(answer: httpx2.Response) -> x509.Certificate:
    """The certificate of an answer."""
    assert answer.status_code == 201, answer.text
    return certificates.load_chain(answer.json()["certificate_chain"].encode())[0]


def published(op: glw.GlewlwydProvider) -> bytes:
    """Its keys, as it publishes them."""
    with op.client() as client:
        return client.get(op.discovery()["jwks_uri"]).raise_for_status().content


def claims_of(op: glw.GlewlwydProvider, token: str) -> dict[str, Any]:
    """What a token says, if joserfc too verifies it with a published key."""
    return second_opinion(token, published(op), algorithms=("ES256",))


# --- code flow ---------------------------------------------------------------------------------------------------------------


def test_a_login_in_a_browser(at: Place, tmp_path: Path) -> None:
    """Code flow, PKCE, and the nonce of the key: a certificate of assurance 2 for Alice."""
    done = at.login(tmp_path, "--issuer", "glewlwyd", "--port", at.port)
    assert done["principal"] == f"spiffe://{DOMAIN}/user/glewlwyd-alice"
    assert run(tmp_path, "whoami")["assurance"] == 2


def test_a_port_that_is_not_registered(at: Place, tmp_path: Path) -> None:
    """Unlike RFC 8252 §7.3 wants it, any other loopback port is refused there; the program says so and does not wait."""
    error = at.login(tmp_path, "--issuer", "glewlwyd", status=3)
    assert error["code"] == "browser-failed"
    assert run(tmp_path, "whoami", status=4)["code"] == "not-logged-in"


def test_a_stolen_id_token(at: Place) -> None:
    """For another key, without the salt or with another: nothing. For its own key once, and not as an access token."""
    key, salt = keys.generate(Algorithm.P256), secrets.token_bytes(16)
    token = glw.log_in(at.op, "alice", nonce=at.bound(key, salt).nonce())["id_token"]
    thief = keys.generate(Algorithm.P256)
    refused(at.ask(thief, "id_token", token, salt=b64url(salt)), 401, "key-not-bound")
    refused(at.ask(thief, "id_token", token), 401, "key-not-bound")
    refused(at.ask(key, "id_token", token, salt=b64url(secrets.token_bytes(16))), 401, "key-not-bound")
    refused(at.ask(key, "access_token", token), 401, "wrong-type")
    refused(at.ask(key, "workload", token), 401, "kind-not-allowed")
    certificate = certified(at.ask(key, "id_token", token, salt=b64url(salt)))
    assert str(certificates.principal_of(certificate)) == f"spiffe://{DOMAIN}/user/glewlwyd-alice"
    refused(at.ask(key, "id_token", token, salt=b64url(salt)), 409, "replayed")


def test_a_login_through_the_signer(at: Place, tmp_path: Path) -> None:
    """From a machine without a browser: the signer's own redirect is registered, so it needs no port."""
    trusted = ("--ca-file", at.site.root, "--ca-file", at.op.ca_file)
    command = [CERTAUTH, "login", at.site.url, *trusted, "--issuer", "glewlwyd", "--mediated", "--json"]
    process = subprocess.Popen(
        [str(word) for word in command],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "CERTAUTH_HOME": str(tmp_path)},
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        said = (TYPE_CODE.search(line) for line in cast("Any", process.stderr))
        code = next(found[1] for found in said if found)
        person = Person(cast("Any", at.site))  # it asks it for a client only
        with person.http:
            redirect = urlsplit(glw.sign_in(at.op.ca_file, person.to_provider(code), "bob"))
            page = person.come_back(dict(parse_qsl(redirect.query)), redirect.path)
        assert "Go back to your terminal" in page.text
        out, err = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, err
        assert json.loads(out)["principal"] == f"spiffe://{DOMAIN}/user/glewlwyd-bob"
    finally:
        process.kill()
        process.communicate()


# --- access tokens -----------------------------------------------------------------------------------------------------------


def test_the_device_grant_with_dpop(at: Place, tmp_path: Path) -> None:
    """The program's own key is in the access token that glewlwyd signs."""
    done = at.login(tmp_path, "--issuer", "glewlwyd", "--device")
    assert done["principal"] == f"spiffe://{DOMAIN}/user/glewlwyd-alice"
    assert run(tmp_path, "whoami")["assurance"] == 2


@pytest.mark.parametrize("flow", [glw.log_in, glw.device_login])
def test_a_stolen_access_token(at: Place, flow: Any) -> None:
    """``cnf.jkt`` is the key of its DPoP proof: for that key once, for no other, and not as an ID token."""
    key, dpop = new_key()
    token = flow(at.op, "alice", dpop=dpop, resource=glw.AUDIENCE, nonce="needless")["access_token"]
    claims = claims_of(at.op, token)
    assert (claims["aud"], claims["cnf"]) == (glw.AUDIENCE, {"jkt": at.bound(key).thumbprint()})
    refused(at.ask(keys.generate(Algorithm.P256), "access_token", token), 401, "key-not-bound")
    refused(at.ask(key, "id_token", token), 401, "wrong-type")
    assert certificates.assurance_of(certified(at.ask(key, "access_token", token))) == 2
    refused(at.ask(key, "access_token", token), 409, "replayed")


def test_an_access_token_without_a_proof(at: Place) -> None:
    """Refused; where the facility takes unbound ones, worth 1. One that is bound is for its key there too."""
    key, dpop = new_key()
    unbound = glw.device_login(at.op, "alice", resource=glw.AUDIENCE)
    assert unbound["token_type"] == "bearer"  # in lower case, as RFC 6749 §5.1 allows
    assert "cnf" not in claims_of(at.op, unbound["access_token"])
    refused(at.ask(key, "access_token", unbound["access_token"]), 401, "key-not-bound")
    unbound = glw.device_login(at.lax, "alice", resource=glw.AUDIENCE)
    assert certificates.assurance_of(certified(at.ask(key, "access_token", unbound["access_token"]))) == 1
    refused(at.ask(key, "access_token", unbound["access_token"]), 409, "replayed")
    bound = glw.device_login(at.lax, "alice", resource=glw.AUDIENCE, dpop=dpop)["access_token"]
    refused(at.ask(keys.generate(Algorithm.P256), "access_token", bound), 401, "key-not-bound")
    assert certificates.assurance_of(certified(at.ask(key, "access_token", bound))) == 1


def test_an_access_token_for_its_scope(at: Place) -> None:
    """Without a resource the audience is ``openid``, which is everybody: refused, though the key is right."""
    key, dpop = new_key()
    token = glw.device_login(at.op, "alice", dpop=dpop)["access_token"]
    assert claims_of(at.op, token)["aud"] == "openid"
    refused(at.ask(key, "access_token", token), 401, "wrong-audience")


def test_a_service_is_no_person(at: Place) -> None:
    """What a client gets for itself by ``private_key_jwt`` is nobody's login, even where it is listed and needs no key."""

    def sign(claims: Mapping[str, object]) -> str:
        return jwt.encode(dict(claims), at.pipeline.private, algorithm="ES256", headers={"kid": "p-1"})

    token = glw.client_credentials(at.lax, PIPELINE, sign=sign, resource=glw.AUDIENCE)["access_token"]
    claims = claims_of(at.lax, token)
    assert (claims["sub"], claims["client_id"], claims["aud"]) == (PIPELINE, PIPELINE, glw.AUDIENCE)
    refused(at.ask(keys.generate(Algorithm.P256), "access_token", token), 401, "wrong-type")
    # Its assertions must be for the token endpoint, to the letter (RFC 7523 §3 would let the issuer do).
    endpoint = at.op.discovery()["token_endpoint"]
    assert glw.client_credentials(at.op, PIPELINE, sign=sign, audience=endpoint)["access_token"]
    for other in (at.op.issuer, f"{endpoint}/"):
        with pytest.raises(RuntimeError, match="403"):
            glw.client_credentials(at.op, PIPELINE, sign=sign, audience=other)


# --- quirks ------------------------------------------------------------------------------------------------------------------


def verified(op: glw.GlewlwydProvider, token: str, key: BoundKey, **settings: Any) -> VerifiedIdentity:
    """What the signer's verifier makes of an ID token."""
    issuer = Issuer(id="glewlwyd", url=op.issuer, audience=op.client_id, algorithms=frozenset({"ES256"}), **settings)
    return verify_id_token(read_proof(token), issuer=issuer, keys=KeySet.parse(published(op)), key=key, now=system_clock())


def test_no_time_of_login_is_none(at: Place) -> None:
    """It looks for the time in cookies that the client has not, and says 0: unknown, not 1970, and not recent enough."""
    key = at.bound(keys.generate(Algorithm.P256), secrets.token_bytes(16))
    token = glw.log_in(at.op, "alice", nonce=key.nonce())["id_token"]
    assert claims_of(at.op, token)["auth_time"] == 0
    assert verified(at.op, token, key).auth_time is None
    with pytest.raises(ProofError, match="missing-claim"):
        verified(at.op, token, key, max_authentication_age=timedelta(hours=24))
    # In the device flow it knows.
    lax = {"bindings": frozenset({Binding.NONCE, Binding.NONE}), "assurance": 1}
    token = glw.device_login(at.op, "alice")["id_token"]
    known = verified(at.op, token, at.bound(keys.generate(Algorithm.P256)), max_authentication_age=timedelta(hours=24), **lax)
    assert known.auth_time is not None
    assert abs(known.auth_time - system_clock()) < timedelta(minutes=10)


def test_an_id_token_with_a_list_of_scopes(at: Place) -> None:
    """Such a list makes it no access token: accepted, bound or, where that is allowed, unbound. ``sub`` is random and stays."""
    key = at.bound(keys.generate(Algorithm.P256), secrets.token_bytes(16))
    token = glw.log_in(at.op, "alice", nonce=key.nonce())["id_token"]
    assert claims_of(at.op, token)["scope"] == ["openid"]
    identity = verified(at.op, token, key)
    assert identity.claims == claims_of(at.op, token)
    assert (identity.kind, identity.binding) == (ProofKind.ID_TOKEN, Binding.NONCE)
    assert identity.subject not in {"alice", "alice@demo.example"}
    other = at.bound(keys.generate(Algorithm.P256), secrets.token_bytes(16))
    again = glw.log_in(at.op, "alice", nonce=other.nonce())["id_token"]
    assert verified(at.op, again, other).subject == identity.subject
    somebody = keys.generate(Algorithm.P256)
    unbound = glw.device_login(at.lax, "alice")["id_token"]
    assert claims_of(at.lax, unbound)["scope"] == ["openid"]
    assert certificates.assurance_of(certified(at.ask(somebody, "id_token", unbound))) == 1


def test_the_device_grant_leaves_the_nonce_out(at: Place) -> None:
    """Its ID token is bound to nothing, whatever the client asked for."""
    key, salt = keys.generate(Algorithm.P256), secrets.token_bytes(16)
    token = glw.device_login(at.op, "alice", nonce=at.bound(key, salt).nonce())["id_token"]
    assert "nonce" not in claims_of(at.op, token)
    refused(at.ask(key, "id_token", token, salt=b64url(salt)), 401, "key-not-bound")


def test_a_refresh_brings_no_id_token(at: Place) -> None:
    """So no certificate can be had from it by an ID token; the access token stays bound to its key, of use only for it."""
    key, dpop = new_key()
    first = glw.device_login(at.op, "alice", dpop=dpop, resource=glw.AUDIENCE)
    form = {"grant_type": "refresh_token", "refresh_token": first["refresh_token"], "client_id": at.op.client_id}
    renewed = glw.token_request(at.op, dpop=dpop, **form)
    assert "id_token" in first
    assert "id_token" not in renewed
    assert claims_of(at.op, renewed["access_token"])["cnf"] == {"jkt": dpop.thumbprint}
    refused(at.ask(keys.generate(Algorithm.P256), "access_token", renewed["access_token"]), 401, "key-not-bound")
    certified(at.ask(key, "access_token", renewed["access_token"]))
    # A thief of the refresh token, with a key of their own, gets nothing that is bound to that key.
    stolen = glw.token_request(at.op, dpop=DpopKey(), **form)
    assert "error" in stolen
    assert "access_token" not in stolen


def test_a_login_without_a_nonce(at: Place) -> None:
    """It refuses to begin one, and one without PKCE."""
    with pytest.raises(RuntimeError, match="nonce required"):
        glw.log_in(at.op, "alice")
    query = {"response_type": "code", "client_id": at.op.client_id, "redirect_uri": glw.REDIRECT, "scope": "openid"}
    url = f"{at.op.discovery()['authorization_endpoint']}?{urlencode({**query, 'state': 's', 'nonce': 'n'})}"
    assert "error=invalid_request" in glw.sign_in(at.op.ca_file, url, "alice")


# --- looking at it -----------------------------------------------------------------------------------------------------------


def checked(op: glw.GlewlwydProvider, level: str) -> tuple[dict[str, Any], dict[str, str]]:
    """What ``certauth signer issuer check`` says, and its findings of one level."""
    found = run_cli("issuer", "check", op.issuer, "--id", "glewlwyd", "--client-id", op.client_id, "--ca-file", op.ca_file)
    return found, {finding["topic"]: finding["text"] for finding in found["findings"] if finding["level"] == level}


def test_what_is_found_out_about_it(at: Place, tmp_path: Path) -> None:
    """It can everything, and nothing is careless; it does not announce all that it does, and that is what the notes say."""
    found, good = checked(at.op, "good")
    assert {"discovery", "code", "pkce", "device", "dpop", "introspection", "keys"} <= good.keys()
    assert f"{glw.KEY_ID} (ES256)" in good["keys"]
    # It puts ``iss`` into its redirects, and serves clients without a secret, and its discovery document names neither.
    _, notes = checked(at.op, "note")
    assert {"rfc9207", "public-clients"} <= notes.keys()
    assert "own_callback = true" in notes["rfc9207"]
    assert checked(at.op, "warning")[1] == checked(at.op, "failure")[1] == {}
    assert 'algorithms = ["ES256"]' in found["table"]
    assert 'scopes = ["openid"]' in found["table"]
    settings = tmp_path / "signer.toml"
    settings.write_text('trust_domain = "als.example"\npublic_url = "https://signer.als.example"\n' + found["table"])
    assert run_cli("issuer", "test", "glewlwyd", "--settings", settings)["works"]


def test_a_url_that_ends_with_a_slash(tmp_path: Path) -> None:
    """Its endpoints then begin with two. They are used as they are: nothing is repaired, and a login works."""
    with glw.glewlwyd_provider(tmp_path, users=("alice",), slash=True) as op:
        assert op.discovery()["token_endpoint"] == f"{op.home}//api/oidc/token"
        found, warnings = checked(op, "warning")
        assert (found["usable"], warnings) == (True, {})
        key = BoundKey(signer_id="https://signer.example:8443", spki=keys.spki(new_key()[0].public_key), salt=bytes(16))
        token = glw.log_in(op, "alice", nonce=key.nonce())["id_token"]
        assert verified(op, token, key).binding is Binding.NONCE
