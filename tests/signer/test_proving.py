"""From a proof to an identity: each kind by its own verifier, and no token as two kinds or by two ways."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from certauth import keys
from certauth.client.jose import public_jwk, sign
from certauth.clock import system_clock
from certauth.encoding import b64url
from certauth.errors import CertauthError, ProofError, RequestError
from certauth.identity import Binding, BoundKey, Issuer, ProofKind, jwk_thumbprint, registry
from certauth.keys import Algorithm, SoftwareKey
from certauth.requests import parse_csr
from signer.cli.common import Facility
from signer.cli.common import facility as opened
from signer.codes import Codes
from signer.introspection import Introspection, IntrospectionSource
from signer.jwks import IssuerSource, KeySource
from signer.login import Logins
from signer.proving import Proving
from signer.schemas import CertificateBody, Proof
from tests.signer.kit import CLIENT_ID, DOMAIN, facility, make_csr, run_cli
from tests.simulator.hostile_provider import HostileProvider, ProviderKey, hostile_provider, jwks, malleated

pytestmark = pytest.mark.anyio

SIGNER = "https://signer.example"
RESOURCE = "https://resource.example"
SALT = bytes(16)
SERVICE = f"spiffe://{DOMAIN}/service/mover"


@pytest.fixture
def anyio_backend() -> str:
    """The signer runs on asyncio."""
    return "asyncio"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Facility]:
    """An open facility, with a service that has a key, one that has none, and a machine's code."""
    with facility(tmp_path_factory.mktemp("site")) as site:
        public = site.directory / "mover.jwk"
        public.write_text(json.dumps({**public_jwk(ENROLLED.public_key), "kid": "what its owner calls it"}))
        common = ("--reason", "a test", "--settings", site.settings_file)
        run_cli("service", "enroll", "mover", "--key", public, *common)
        made = run_cli("service", "enroll", "node7", "--kind", "host", "--host", "node7.als.example", "--code", *common)
        CODES.append(str(made["code"]))
        with opened(site.settings_file, allow_example_keys=False) as running:
            yield running


ENROLLED = keys.generate(Algorithm.P256)
PROVIDER_KEY = ProviderKey("ES256")
CODES: list[str] = []


@dataclass(slots=True)
class Desk:
    """Everything that proves, with a provider that says what the test wants."""

    proving: Proving
    provider: HostileProvider

    async def identity(self, key: SoftwareKey, **proof: object) -> object:
        """What the proof amounts to for this key: the identity's kind, binding and subject, or the code of the error."""
        body = CertificateBody.model_validate({"csr": make_csr(key), "proof": proof})
        parsed: Proof = body.proof
        try:
            found = await self.proving.identity(parsed, parse_csr(body.csr))
        except CertauthError as error:
            return error.code
        return found.kind, found.binding, found.subject

    def token(self, *, typ: str = "JWT", **claims: object) -> str:
        """A token of the provider."""
        now = int(system_clock().timestamp())
        said = {"iss": self.provider.issuer, "sub": "alice", "aud": CLIENT_ID, "iat": now, "exp": now + 300, **claims}
        return PROVIDER_KEY.sign(said, json.dumps(PROVIDER_KEY.header(typ=typ)).encode())

    def access_token(self, key: SoftwareKey | None = None) -> str:
        """An access token, bound to ``key`` if there is one."""
        cnf = {} if key is None else {"cnf": {"jkt": bound(key).thumbprint()}}
        return self.token(typ="at+jwt", aud=RESOURCE, client_id=CLIENT_ID, jti=secrets.token_hex(8), **cnf)


def bound(key: SoftwareKey, *, salt: bytes | None = None) -> BoundKey:
    """The key as proofs are bound to it."""
    return BoundKey(signer_id=SIGNER, spki=keys.spki(key.public_key), salt=salt)


@asynccontextmanager
async def desk(place: Facility, directory: Path) -> AsyncIterator[Desk]:
    """All of it, put together as the service does."""
    secret = directory / "secret"
    secret.touch(mode=0o600)
    secret.write_text("of-the-client")
    with hostile_provider() as provider:
        provider.jwks = jwks(PROVIDER_KEY)
        provider.more["introspection_endpoint"] = f"{provider.issuer}/introspect"
        issuer = Issuer(
            id="campus",
            url=provider.issuer,
            audience=CLIENT_ID,
            kinds=frozenset({ProofKind.ID_TOKEN, ProofKind.ACCESS_TOKEN, ProofKind.WORKLOAD}),
            bindings=frozenset({Binding.NONCE, Binding.DPOP, Binding.AUDIENCE}),
            access_token_audience=RESOURCE,
            allow_loopback_http=True,
        )
        source = KeySource([IssuerSource(url=provider.issuer, allow_loopback_http=True)])
        asked = IntrospectionSource(url=provider.issuer, client_id=CLIENT_ID, secret_file=secret)
        introspection = Introspection([asked], key_source=source, clock=system_clock)
        proving = Proving(
            signer_id=SIGNER,
            issuers=registry([issuer]),
            key_source=source,
            introspection=introspection,
            logins=Logins(public_url=SIGNER, providers=[], keys=source, clock=system_clock),
            codes=Codes(store=place.store),
            store=place.store,
            clock=system_clock,
        )
        try:
            yield Desk(proving, provider)
        finally:
            await introspection.aclose()
            await source.aclose()


async def test_tokens_of_a_provider(place: Facility, tmp_path: Path) -> None:
    """Each kind is verified as that kind, for the key of the request and no other."""
    key, thief = keys.generate(Algorithm.P256), keys.generate(Algorithm.P256)
    async with desk(place, tmp_path) as at:
        id_token = at.token(nonce=bound(key, salt=SALT).nonce())
        workload = at.token(aud=bound(key).audience(), nbf=int(system_clock().timestamp()))
        access = at.access_token(key)
        for proof, binding in (
            ({"type": "id_token", "token": id_token, "salt": b64url(SALT)}, Binding.NONCE),
            ({"type": "workload", "token": workload}, Binding.AUDIENCE),
            ({"type": "access_token", "token": access}, Binding.DPOP),
            ({"type": "access_token", "token": access, "issuer": "campus"}, Binding.DPOP),
        ):
            assert await at.identity(key, **proof) == (ProofKind(proof["type"]), binding, "alice")
            assert await at.identity(thief, **proof) == "key-not-bound"
        assert await at.identity(key, type="id_token", token=id_token) == "key-not-bound"
        assert await at.identity(key, type="id_token", token=access, salt=b64url(SALT)) == "wrong-type"
        assert await at.identity(key, type="access_token", token=id_token) == "wrong-type"
        assert await at.identity(key, type="client_assertion", token=id_token) == "unknown-issuer"
        assert at.provider.forms == []  # a JWT is never asked about, whatever is said beside it


async def test_a_salt_that_is_none(place: Facility, tmp_path: Path) -> None:
    """A salt in another spelling would make two proofs of one."""
    async with desk(place, tmp_path) as at:
        for salt in ("!" * 22, "A" * 21 + "B", "A" * 21 + "="):
            assert await at.identity(keys.generate(Algorithm.P256), type="id_token", token="x", salt=salt) == "body-malformed"


async def test_opaque_tokens(place: Facility, tmp_path: Path) -> None:
    """Asked about at the issuer that is named, which must be known; what it says is about this key or refused."""
    key, thief = keys.generate(Algorithm.P256), keys.generate(Algorithm.P256)
    async with desk(place, tmp_path) as at:
        at.provider.more["introspection_endpoint_auth_methods_supported"] = ["client_secret_basic"]
        now = int(system_clock().timestamp())
        at.provider.says = {
            "active": True,
            "sub": "alice",
            "aud": RESOURCE,
            "client_id": CLIENT_ID,
            "token_type": "DPoP",
            "iat": now,
            "exp": now + 300,
            "cnf": {"jkt": bound(key).thumbprint()},
        }
        proof = {"type": "access_token", "token": "opaque-1"}
        assert await at.identity(key, **proof, issuer="campus") == (ProofKind.ACCESS_TOKEN, Binding.DPOP, "alice")
        assert await at.identity(thief, **proof, issuer="campus") == "key-not-bound"
        assert await at.identity(key, **proof, issuer="elsewhere") == "unknown-issuer"
        assert await at.identity(key, **proof) == "proof-malformed"  # it does not say whose it is
        at.provider.says = {"active": False}
        assert await at.identity(key, type="access_token", token="opaque-2", issuer="campus") == "token-inactive"
        assert [form["token"] for form in at.provider.forms] == ["opaque-1", "opaque-2"]
        # Another spelling of a JWT that the issuer would explain just as well is no opaque token.
        spelled = at.access_token(key) + "="
        assert await at.identity(key, type="access_token", token=spelled, issuer="campus") == "proof-malformed"
        assert len(at.provider.forms) == 2


def assertion(key: SoftwareKey, *, by: SoftwareKey = ENROLLED, name: str = SERVICE, **claims: object) -> dict[str, object]:
    """What a service signs for ``key``."""
    now = int(system_clock().timestamp())
    said = {"iss": name, "sub": name, "aud": SIGNER, "jti": secrets.token_hex(8), "iat": now, "exp": now + 120}
    said |= {"cnf": {"jkt": bound(key).thumbprint()}, **claims}
    return {"type": "client_assertion", "token": sign({"kid": jwk_thumbprint(public_jwk(by.public_key))}, said, by)}


async def test_assertions(place: Facility, tmp_path: Path) -> None:
    """By the enrolled key, under its thumbprint. Who is not enrolled, has no key, or is no name at all is told the same."""
    key = keys.generate(Algorithm.P256)
    async with desk(place, tmp_path) as at:
        expected = (ProofKind.CLIENT_ASSERTION, Binding.POSSESSION, SERVICE)
        assert await at.identity(key, **assertion(key)) == expected
        assert await at.identity(keys.generate(Algorithm.P256), **assertion(key)) == "key-not-bound"
        assert await at.identity(key, **assertion(key, by=key)) == "unknown-key"
        assert await at.identity(key, **assertion(key, aud="https://elsewhere.example")) == "wrong-audience"
        assert await at.identity(key, **assertion(key, sub=f"spiffe://{DOMAIN}/service/other")) == "unknown-issuer"
        end = int((system_clock() + timedelta(hours=1)).timestamp())
        assert await at.identity(key, **assertion(key, exp=end)) in {"bad-claim", "proof-too-old"}
        told = set()
        for name in (f"spiffe://{DOMAIN}/host/node7", f"spiffe://{DOMAIN}/service/nobody", "mover", "spiffe://x"):
            with pytest.raises(ProofError) as caught:
                await at.proving.identity(
                    CertificateBody.model_validate({"csr": "", "proof": assertion(key, name=name)}).proof,
                    parse_csr(make_csr(key)),
                )
            told.add((caught.value.code, caught.value.message))
        assert {code for code, _ in told} == {"unknown-issuer"}
        assert len(told) == 1


async def test_what_makes_an_assertion_one_proof(place: Facility, tmp_path: Path) -> None:
    """Both signatures of one assertion are one proof to the ledger, and it is remembered for as long as it is good."""
    key = keys.generate(Algorithm.P256)
    wish, request = assertion(key), parse_csr(make_csr(key))
    async with desk(place, tmp_path) as at:
        found = []
        for token in (str(wish["token"]), malleated(str(wish["token"]))):
            body = CertificateBody.model_validate({"csr": "", "proof": {**wish, "token": token}})
            found.append(await at.proving.identity(body.proof, request))
        assert found[0].proof_digest == found[1].proof_digest
        assert found[0].replay_until > found[0].expires_at


async def test_codes_and_logins(place: Facility, tmp_path: Path) -> None:
    """A code is its machine's, a login is its beginner's; anything else is nobody's."""
    key = keys.generate(Algorithm.P256)
    async with desk(place, tmp_path) as at:
        machine = (ProofKind.CODE, Binding.POSSESSION, f"spiffe://{DOMAIN}/host/node7")
        assert await at.identity(key, type="code", code=CODES[0]) == machine
        assert await at.identity(key, type="code", code=CODES[0].upper()) == machine
        assert await at.identity(key, type="code", code=CODES[0][:-1] + "~") == "code-invalid"
        assert await at.identity(key, type="login", login="none", secret="s" * 32) == "login-unknown"


async def test_errors_tell_nothing_of_the_proof(place: Facility, tmp_path: Path) -> None:
    """What is refused is not repeated, in no message and no hint."""
    key, secret = keys.generate(Algorithm.P256), secrets.token_urlsafe(24)
    async with desk(place, tmp_path) as at:
        proofs: list[dict[str, object]] = [
            {"type": kind, "token": f"{secret}.{secret}.{secret}"}
            for kind in ("id_token", "access_token", "workload", "client_assertion")
        ]
        proofs += [{"type": "code", "code": secret}, {"type": "login", "login": "known-to-all", "secret": secret}]
        proofs += [{"type": "access_token", "token": secret, "issuer": "campus"}]
        for proof in proofs:
            body = CertificateBody.model_validate({"csr": "", "proof": proof})
            with pytest.raises((ProofError, RequestError)) as caught:
                await at.proving.identity(body.proof, parse_csr(make_csr(key)))
            assert secret not in f"{caught.value!r} {caught.value.message} {caught.value.hint}"
            assert secret not in repr(body)
