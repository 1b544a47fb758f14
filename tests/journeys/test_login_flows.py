"""Every interactive login with providers that are not ours: what they sign is verified here by a library that is not ours.

The signer is simulated and keeps what it is sent. That is then verified twice, with joserfc and with the signer's own verifier,
which must refuse it for any other key. Each login is that of a real process.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet as JoserfcKeySet

from certauth.client.attempt import Method, Situation
from certauth.client.browser import Browser
from certauth.client.jose import public_jwk
from certauth.client.login import Wishes, log_in
from certauth.client.profile import Home
from certauth.clock import system_clock
from certauth.encoding import from_b64url
from certauth.errors import ProofError
from certauth.identity import Issuer, KeySet, VerifiedIdentity, read_proof
from certauth.identity.access_token import verify_access_token
from certauth.identity.binding import BoundKey, jwk_thumbprint
from certauth.identity.client_assertion import verify_client_assertion
from certauth.identity.id_token import verify_id_token
from certauth.identity.kinds import Binding, ProofKind
from certauth.keys import Algorithm, generate, spki
from certauth.names import Principal
from certauth.requests import parse_csr
from signer.login_api import BeginBody, StateBody
from signer.schemas import CertificateBody, parse
from tests.simulator import node_provider as node
from tests.simulator import openid_provider as idpy
from tests.simulator.hostile_signer import HostileSigner, hostile_signer

CERTAUTH = Path(sys.executable).with_name("certauth")
ROOT = Path(__file__).resolve().parents[2]
SECONDS = 120


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[node.NodeProvider]:
    """Npm oidc-provider: code flow, device grant, DPoP."""
    with node.node_provider(tmp_path_factory.mktemp("node")) as running:
        yield running


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[idpy.Provider]:
    """PyPI idpyoidc: code flow."""
    with idpy.running_provider(tmp_path_factory.mktemp("idpyoidc"), users=("alice",)) as running:
        yield running


@pytest.fixture
def signer(tmp_path: Path) -> Iterator[HostileSigner]:
    """An honest signer."""
    (tmp_path / "signer").mkdir()
    with hostile_signer(tmp_path / "signer") as running:
        yield running


_STARTED: list[subprocess.Popen[bytes]] = []


@pytest.fixture(autouse=True)
def nobody_is_left() -> Iterator[None]:
    """A test that fails leaves no process behind."""
    yield
    while _STARTED:
        process = _STARTED.pop()
        if process.poll() is None:
            process.kill()
            process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


class Login:
    """A login in a process of its own, and what it says while it runs."""

    def __init__(self, signer: HostileSigner, home: Path, ca: Path, *words: object, stdin: int = subprocess.DEVNULL) -> None:
        command = [CERTAUTH, "login", signer.url, "--ca-file", signer.ca_file, "--ca-file", ca, *words]
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "CERTAUTH_HOME": str(home)}
        self.process = subprocess.Popen(
            [str(word) for word in command],
            env=environment,
            cwd=ROOT,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        _STARTED.append(self.process)

    def says(self, pattern: str) -> str:
        """The first group of what it says on standard error."""
        assert self.process.stderr is not None
        said, deadline = b"", time.monotonic() + SECONDS
        while (found := re.search(pattern, said.decode())) is None:
            ready, _, _ = select.select([self.process.stderr], [], [], max(0, deadline - time.monotonic()))
            piece = os.read(self.process.stderr.fileno(), 65536) if ready else b""
            assert piece, said
            said += piece
        return found[1]

    def ends(self, line: str | None = None) -> None:
        """It ends well; ``line`` is what the user enters."""
        out, err = self.process.communicate(None if line is None else line.encode(), timeout=SECONDS)
        assert self.process.returncode == 0, err
        assert b"Logged in." in out


def published(issuer: str, ca: Path) -> bytes:
    """The provider's key set."""
    with httpx2.Client(verify=ssl.create_default_context(cafile=str(ca)), trust_env=False) as client:
        discovery = client.get(f"{issuer}/.well-known/openid-configuration").json()
        return client.get(discovery["jwks_uri"]).content


def verified(token: str, issuer: str, ca: Path) -> dict[str, Any]:
    """The claims of a token that the provider's published keys verify, with joserfc."""
    keys = JoserfcKeySet.import_key_set(json.loads(published(issuer, ca)))
    return dict(jwt.decode(token, keys, algorithms=["RS256", "ES256"]).claims)


def only_for_this_key(
    verify: Callable[..., VerifiedIdentity], token: str, issuer: Issuer, ca: Path, key: BoundKey, binding: Binding
) -> None:
    """The signer's verifier accepts the token for the key of the request, and for no other key: a thief has nothing."""
    keys = KeySet.parse(published(issuer.url, ca))
    proof = read_proof(token)
    assert verify(proof, issuer=issuer, keys=keys, key=key, now=system_clock()).binding is binding
    thief = BoundKey(signer_id=key.signer_id, spki=spki(generate(Algorithm.P256).public_key), salt=key.salt)
    with pytest.raises(ProofError) as caught:
        verify(proof, issuer=issuer, keys=keys, key=thief, now=system_clock())
    assert caught.value.code == "key-not-bound"


def certified(signer: HostileSigner) -> BoundKey:
    """The key for which a certificate was asked last, with the salt of its proof."""
    body = next(json.loads(body) for _, path, _, body in reversed(signer.seen) if path == "/v1/certificates")
    salt = body["proof"].get("salt")
    return BoundKey(signer_id=signer.url, spki=parse_csr(body["csr"]).spki, salt=None if salt is None else from_b64url(salt))


def offer(signer: HostileSigner, url: str, client_id: str, **more: Any) -> None:
    """The signer's users log in at this provider."""
    signer.offers = {"url": url, "client_id": client_id, "scopes": ["openid", "email"]} | more


def test_device_grant_with_dpop(provider: node.NodeProvider, signer: HostileSigner, tmp_path: Path):
    """oidc-provider signs an access token for the signer whose cnf.jkt is the key of the certification request."""
    audience = "https://signer.example"
    offer(
        signer,
        provider.issuer,
        provider.client_id,
        flows=["device"],
        kinds=["access_token"],
        bindings=["dpop"],
        access_token_audience=audience,
    )
    login = Login(signer, tmp_path / "home", provider.ca_file, "--device")
    said = login.says(r"(https://\S+\s+and type this code:  \S+)").split()
    node.approve_device(provider, "alice", said[0], said[-1])
    login.ends()
    (proof,) = signer.proofs
    assert proof["type"] == "access_token"
    claims = verified(proof["token"], provider.issuer, provider.ca_file)
    assert (claims["aud"], claims["sub"]) == (audience, "alice")
    assert claims["cnf"] == {"jkt": certified(signer).thumbprint()}
    believed = Issuer(
        id="campus",
        url=provider.issuer,
        audience=provider.client_id,
        kinds=frozenset({ProofKind.ACCESS_TOKEN}),
        bindings=frozenset({Binding.DPOP}),
        access_token_audience=audience,
    )
    only_for_this_key(verify_access_token, proof["token"], believed, provider.ca_file, certified(signer), Binding.DPOP)


def test_device_grant_where_the_provider_demands_a_nonce(provider: node.NodeProvider, signer: HostileSigner, tmp_path: Path):
    """The provider's own nonce goes into the proof (RFC 9449 §8)."""
    provider.change(features={"dpop_nonce": True})
    try:
        test_device_grant_with_dpop(provider, signer, tmp_path)
    finally:
        provider.change(features={})


def test_a_user_who_says_no_at_the_device_page(provider: node.NodeProvider, signer: HostileSigner, tmp_path: Path):
    """The refusal ends the wait."""
    offer(
        signer,
        provider.issuer,
        provider.client_id,
        flows=["device"],
        kinds=["access_token"],
        bindings=["dpop"],
        access_token_audience="https://signer.example",
    )
    provider.change(accounts={"alice": node.account("alice", refuses=True)})
    try:
        login = Login(signer, tmp_path / "home", provider.ca_file, "--device")
        said = login.says(r"(https://\S+\s+and type this code:  \S+)").split()
        with node.Browser(provider, "alice") as browser, contextlib.suppress(RuntimeError):  # it goes on asking
            browser.open(said[0], user_code=said[-1])
        _, err = login.process.communicate(timeout=SECONDS)
        assert login.process.returncode == 3, err
        assert b"[login-refused]" in err
    finally:
        provider.change(accounts=dict(provider.accounts))
    assert signer.proofs == []


def test_code_flow_at_oidc_provider(provider: node.NodeProvider, signer: HostileSigner, tmp_path: Path):
    """The ID token's nonce is explained by key, signer and salt, and by no other key."""
    offer(signer, provider.issuer, provider.client_id)
    login = Login(signer, tmp_path / "home", provider.ca_file, "--no-browser")
    address = login.says(r"(https://\S+code_challenge_method=S256)\s")
    with node.Browser(provider, "alice") as browser:
        redirect = browser.open(address)
    with httpx2.Client(trust_env=False) as client:
        assert client.get(redirect).status_code == 200
    login.ends()
    claims = verified(signer.proofs[0]["token"], provider.issuer, provider.ca_file)
    key = certified(signer)
    assert claims["nonce"] == key.nonce()
    assert claims["nonce"] != BoundKey(signer_id="https://elsewhere.example", spki=key.spki, salt=key.salt).nonce()
    believed = Issuer(id="campus", url=provider.issuer, audience=provider.client_id)
    only_for_this_key(verify_id_token, signer.proofs[0]["token"], believed, provider.ca_file, key, Binding.NONCE)


def test_paste_back_at_oidc_provider(provider: node.NodeProvider, signer: HostileSigner, tmp_path: Path):
    """The browser runs anywhere; the address at which it ends is pasted."""
    offer(signer, provider.issuer, provider.client_id)
    login = Login(signer, tmp_path / "home", provider.ca_file, "--paste", stdin=subprocess.PIPE)
    address = login.says(r"(https://\S+code_challenge_method=S256)\s")
    with node.Browser(provider, "bob") as browser:
        redirect = browser.open(address)
    login.ends(redirect + "\n")
    claims = verified(signer.proofs[0]["token"], provider.issuer, provider.ca_file)
    assert (claims["sub"], claims["nonce"]) == ("bob", certified(signer).nonce())


def test_code_flow_at_idpyoidc_shared_by_eight_processes(other: idpy.Provider, signer: HostileSigner, tmp_path: Path):
    """Eight processes at once, each with a browser that would log in: the provider sees one login and gives one token."""
    offer(signer, other.issuer, other.client_id)
    log = other.ca_file.parents[1] / "provider.log"
    before = log.read_text().count("POST /token")
    browser = f"{sys.executable} -m tests.simulator.openid_provider --user alice --ca-file {other.ca_file} --browse"
    running = [Login(signer, tmp_path / "home", other.ca_file, "--browser-command", browser, "--json") for _ in range(8)]
    said = [login.process.communicate(timeout=4 * SECONDS) for login in running]
    assert [login.process.returncode for login in running] == [0] * 8, said
    assert log.read_text().count("POST /token") == before + 1
    assert len({json.loads(out)["fingerprint"] for out, _ in said}) == 1
    claims = verified(signer.proofs[0]["token"], other.issuer, other.ca_file)
    assert claims["nonce"] == certified(signer).nonce()
    assert claims["sub"] == other.subject_of("alice")


# --- without a person --------------------------------------------------------------------------------------------------


def at(signer: HostileSigner, home: Path, **wishes: Any) -> None:
    """Log in, in this process."""
    wishes.setdefault("browser", Browser(enabled=False, timeout=60))
    situation = wishes.pop("situation", Situation())
    wished = Wishes(ca=signer.ca_file.read_bytes(), **wishes)
    log_in(Home(home), signer.url, wished, clock=system_clock, tell=lambda _: signer.finish_logins(), situation=situation)


@pytest.mark.parametrize("algorithm", [Algorithm.P256, Algorithm.P384, Algorithm.ED25519])
def test_the_signer_believes_a_services_assertion_for_its_key_only(signer: HostileSigner, tmp_path: Path, algorithm: Algorithm):
    """What the client signs with an enrolled key is what the verifier wants, and it is for this key and this signer."""
    enrolled, mover = generate(algorithm), "spiffe://hostile.example/service/mover"
    at(signer, tmp_path / "home", method=Method.KEY, key=enrolled, principal=Principal.parse(mover))
    jwk = public_jwk(enrolled.public_key)
    keys = KeySet.parse(json.dumps({"keys": [{**jwk, "kid": jwk_thumbprint(jwk)}]}).encode())
    proof, key = read_proof(signer.proofs[0]["token"]), certified(signer)
    window = {"now": system_clock(), "skew": timedelta(seconds=60)}
    found = verify_client_assertion(proof, principal=mover, keys=keys, key=key, **window)  # type: ignore[arg-type]  # by name
    assert found.subject == mover
    thief = BoundKey(signer_id=signer.url, spki=spki(generate(Algorithm.P256).public_key))
    elsewhere = BoundKey(signer_id="https://elsewhere.example", spki=key.spki)
    for other, code in ((thief, "key-not-bound"), (elsewhere, "wrong-audience")):
        with pytest.raises(ProofError) as caught:
            verify_client_assertion(proof, principal=mover, keys=keys, key=other, **window)  # type: ignore[arg-type]  # likewise
        assert caught.value.code == code


def test_every_request_is_one_that_the_signer_reads(signer: HostileSigner, tmp_path: Path):
    """What the client sends for each kind of proof fits the bodies as the signer parses them, which allow nothing else."""
    signer.offers = {
        "flows": ["mediated", "device"],
        "kinds": ["access_token", "workload"],
        "bindings": ["none", "dpop", "audience"],
    }
    job = {"ACTIONS_ID_TOKEN_REQUEST_URL": f"{signer.url}/actions/token", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "of-the-job"}
    enrolled = {"key": generate(Algorithm.P256), "principal": Principal.parse("spiffe://hostile.example/service/mover")}
    invite = "of-sixteen-characters-or-more"
    at(signer, tmp_path / "1", method=Method.MEDIATED, invite=invite, lifetime=timedelta(hours=1))
    at(signer, tmp_path / "2", method=Method.DEVICE)
    at(signer, tmp_path / "3", method=Method.WORKLOAD, situation=Situation(environment=job))
    at(signer, tmp_path / "4", method=Method.KEY, **enrolled)
    at(signer, tmp_path / "5", method=Method.CODE, code="of-sixteen-characters-or-more")
    at(signer, tmp_path / "6", method=Method.TOKEN, token="opaque")
    bodies = {"/v1/certificates": CertificateBody, "/v1/logins": BeginBody}
    read = [
        parse(bodies.get(path, StateBody), body)
        for _, path, _, body in signer.seen
        if path.startswith(("/v1/certificates", "/v1/logins"))
    ]
    kinds = [body.proof.type for body in read if isinstance(body, CertificateBody)]
    assert kinds == ["login", "access_token", "workload", "client_assertion", "code", "access_token"]
    assert {type(body) for body in read} == {CertificateBody, BeginBody, StateBody}
