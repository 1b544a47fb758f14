"""A real identity provider goes away, comes back with other keys, or changes them: who notices, and who does not.

Whoever has a certificate goes on. Whoever wants to log in is told that it is the provider, and when to come again. People of
another provider notice nothing. The signer's waits between two fetches are shortened; nothing else is.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

import httpx2
import pytest

from certauth import certificates, keys
from certauth.encoding import b64url
from certauth.identity.binding import BoundKey
from certauth.keys import Algorithm, SoftwareKey
from signer.jwks import KeySource, Pace
from tests.demo.stage import free_port
from tests.journeys.kit import until
from tests.journeys.login_place import add_issuer, people, run
from tests.signer.kit import DOMAIN, Identity, Site, facility, make_csr
from tests.signer.login_kit import CLIENT_ID, Person, log_in_at
from tests.simulator import node_provider as node

SALT = bytes(16)


@dataclass(slots=True)
class Provider:
    """npm oidc-provider at one address, which can be killed and started again: with other keys under the same ids."""

    directory: Path
    clients: list[dict[str, object]]
    port: int = field(default_factory=free_port)
    running: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    real: node.NodeProvider = field(init=False)

    def start(self) -> None:
        self.real = self.running.enter_context(node.node_provider(self.directory, clients=self.clients, port=self.port))

    def kill(self) -> None:
        self.running.close()


@dataclass(slots=True, kw_only=True)
class Facility:
    """A facility with two providers: ``hpc``, to which everything happens, and ``campus``, which just runs."""

    site: Site
    hpc: Provider
    campus: Provider

    def key_and_token(self, provider: Provider, user: str) -> tuple[SoftwareKey, str]:
        """A key, and an ID token of the provider for it, not used yet."""
        key = keys.generate(Algorithm.P256)
        nonce = BoundKey(signer_id=self.site.url, spki=keys.spki(key.public_key), salt=SALT).nonce()
        callback = f"{self.site.url}/login/callback"
        return key, node.log_in(provider.real, user, client_id=CLIENT_ID, redirect_uri=callback, nonce=nonce)["id_token"]

    def ask(self, key: SoftwareKey, token: str) -> httpx2.Response:
        """A certificate for it."""
        proof = {"type": "id_token", "token": token, "salt": b64url(SALT)}
        with self.site.client() as client:
            return client.post("/v1/certificates", json={"csr": make_csr(key), "proof": proof})

    def log_in(self, provider: Provider, user: str) -> Identity:
        """Somebody with a certificate; the signer may have to wait before it looks for keys again."""
        key, token = self.key_and_token(provider, user)
        granted = until(lambda: answer if (answer := self.ask(key, token)).status_code == 201 else None)
        return Identity(key=key, chain=certificates.load_chain(granted.json()["certificate_chain"].encode()))

    def begin(self, issuer: str) -> tuple[httpx2.Response, dict[str, str]]:
        """A login through the signer, and what it is asked about with."""
        secret = secrets.token_urlsafe(32)
        digest = hashlib.sha256(secret.encode()).hexdigest()
        wish = {"csr": make_csr(keys.generate(Algorithm.P256)), "issuer": issuer, "host": "h", "secret_sha256": digest}
        with self.site.client() as client:
            return client.post("/v1/logins", json=wish), {"secret": secret}


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Facility]:
    """The facility, not yet served."""
    monkeypatch.setattr("signer.service.KeySource", functools.partial(KeySource, pace=Pace(cooldown=0.1)))
    with facility(tmp_path) as site, contextlib.ExitStack() as running:
        web = {"application_type": "web", "grant_types": ["authorization_code"]}
        clients = [node.public_client(CLIENT_ID, redirect_uris=[f"{site.url}/login/callback"], **web)]
        made = Facility(site=site, hpc=Provider(tmp_path / "hpc", clients), campus=Provider(tmp_path / "campus", clients))
        for name, provider in (("hpc", made.hpc), ("campus", made.campus)):
            running.callback(provider.kill)
            provider.start()
            ca_file, rules = str(provider.real.ca_file), people(name, "/sub")
            add_issuer(site, name, provider.real.issuer, CLIENT_ID, ca_file=ca_file, enrolment="open", rules=rules)
        yield made


def unavailable(answer: httpx2.Response, code: str) -> None:
    """503, a stable code, a sentence about the provider and a time to come again; nothing of the credential."""
    told = answer.json()
    assert (answer.status_code, told["code"]) == (503, code), answer.text
    assert "identity provider" in told["detail"]
    assert int(answer.headers["retry-after"]) >= 1


def test_a_provider_that_is_gone(at: Facility, tmp_path: Path) -> None:
    """Tokens and renewals go on, logins in the middle end cleanly, unused proofs hold; and after its return all is well."""
    with at.site.serving():
        alice = at.log_in(at.hpc, "alice")
        spare_key, spare = at.key_and_token(at.hpc, "alice")
        begun, secret = at.begin("hpc")
        person = Person(cast("Any", at.site))
        with person.http:
            redirect = urlsplit(log_in_at(person.to_provider(begun.json()["user_code"]), "bob", at.hpc.real.ca_file))
            at.hpc.kill()
            page = person.come_back(dict(parse_qsl(redirect.query)))
        assert page.status_code == 503
        assert "The identity provider cannot be asked" in page.text
        with at.site.client() as client:
            told = client.post(f"/v1/logins/{begun.json()['login']}", json=secret)
        assert (told.status_code, told.json()["code"]) == (403, "login-failed")
        assert "provider-unavailable" in told.json()["detail"]
        with at.site.client(alice) as client:
            assert client.post("/v1/tokens", json={"audience": "files"}).status_code == 201
            renewed = client.post("/v1/renewals", json={"csr": make_csr(keys.generate(Algorithm.P256))})
            assert renewed.status_code == 201, renewed.text
            assert renewed.json()["principal"] == f"spiffe://{DOMAIN}/user/hpc-alice"
        assert at.ask(spare_key, spare).status_code == 201  # its keys are known: nobody needs to be asked
        at.log_in(at.campus, "alice")
    key, token = at.key_and_token(at.campus, "bob")
    with at.site.serving():  # a signer that starts during the outage has none of its keys
        unavailable(at.ask(spare_key, spare), "issuer-unavailable")
        unavailable(at.begin("hpc")[0], "issuer-unavailable")
        trusted = ("--ca-file", at.site.root, "--ca-file", at.campus.real.ca_file)
        error = run(tmp_path / "home", "login", at.site.url, *trusted, "--issuer", "hpc", "--mediated", status=5)
        assert error["code"] == "issuer-unavailable"
        assert at.ask(key, token).status_code == 201
        assert at.begin("campus")[0].status_code == 201
        with at.site.client(alice) as client:
            assert client.post("/v1/tokens", json={"audience": "files"}).status_code == 201
        at.hpc.start()  # with new keys under the old ids
        assert str(certificates.principal_of(at.log_in(at.hpc, "bob").chain[0])) == f"spiffe://{DOMAIN}/user/hpc-bob"
        forgotten = until(lambda: answer if (answer := at.ask(spare_key, spare)).status_code == 401 else None)
        assert forgotten.json()["code"] == "bad-signature"


def test_a_provider_that_changes_its_keys(at: Facility) -> None:
    """A new key is found when a token names it; tokens of the old one hold while it is published, and not longer."""
    old, new, newest = ({"kid": kid, "alg": "RS256"} for kid in ("rs-1", "rs-2", "rs-3"))
    with at.site.serving():
        at.log_in(at.hpc, "alice")
        first, second = at.key_and_token(at.hpc, "alice"), at.key_and_token(at.hpc, "alice")
        at.hpc.real.change(keys=[new, old])
        at.log_in(at.hpc, "alice")
        assert at.ask(*first).status_code == 201
        at.hpc.real.change(keys=[newest, new])
        at.log_in(at.hpc, "alice")
        refused = until(lambda: answer if (answer := at.ask(*second)).status_code == 401 else None)
        assert refused.json()["code"] == "unknown-key"
        at.log_in(at.campus, "alice")


def test_a_provider_whose_old_key_was_stolen(at: Facility) -> None:
    """A key with a known id but other bits is not the key: what is signed with the withdrawn one is refused."""
    with at.site.serving():
        at.log_in(at.hpc, "alice")
        stolen = at.key_and_token(at.hpc, "alice")
        at.hpc.real.change(keys=[{"kid": "rs-1", "alg": "RS256", "renewed": "1"}])
        at.log_in(at.hpc, "alice")
        refused = until(lambda: answer if (answer := at.ask(*stolen)).status_code == 401 else None)
        assert refused.json()["code"] == "bad-signature"
