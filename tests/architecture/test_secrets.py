"""Nothing secret is in what Python prints of an object: logs, tracebacks and debuggers show ``repr``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from certauth import tokens
from certauth.errors import CertauthError
from certauth.identity import read_proof
from certauth.keys import Algorithm, SoftwareKey, generate, load_private, save_private
from policy.middleware import PolicyMiddleware
from policy.server import ServerSettings
from policy.testing import Facility
from policy.token import TokenVerifier
from signer import authority
from signer.key_index import Use
from signer.schemas import CertificateBody, IdTokenProof, parse
from tests.policy.door import RULES, HandClock, request
from tests.signer.kit import Site, facility
from tests.simulator.hostile_provider import ProviderKey


def shown(value: object) -> str:
    """Everything a careless log line could make of it."""
    texts = [repr(value), str(value), f"{value}"]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        texts += [repr(getattr(value, field.name, None)) for field in dataclasses.fields(value) if field.repr]
    return " ".join(texts)


def secrets_of(key: SoftwareKey) -> Iterator[str]:
    """The private key in the forms in which it could be printed."""
    der = key.private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    yield der.hex()[-40:]
    yield repr(der)[-40:-2]
    numbers = getattr(key.private_key, "private_numbers", None)
    if numbers is not None:
        yield str(numbers().private_value)


@pytest.mark.parametrize("algorithm", [Algorithm.P256, Algorithm.ED25519])
def test_keys(algorithm: Algorithm) -> None:
    """A private key shows which it is and nothing of itself."""
    key = generate(algorithm)
    for secret in secrets_of(key):
        assert secret not in shown(key)


def proof() -> str:
    """A signed token."""
    return ProviderKey("ES256").sign({"iss": "https://idp.example", "sub": "alice-the-subject", "nonce": "n"})


def test_proofs() -> None:
    """An ID token is a credential until it is used: neither the request body nor the parsed proof shows it."""
    token = proof()
    body = {"csr": "x", "proof": {"type": "id_token", "token": token, "salt": "A" * 22}}
    for value in (IdTokenProof(**body["proof"]), parse(CertificateBody, json.dumps(body).encode()), read_proof(token)):  # type: ignore[arg-type]
        for part in token.split("."):
            assert part not in shown(value)
        assert "alice-the-subject" not in shown(value)


def test_errors_about_proofs() -> None:
    """A refused proof, body or token is not repeated in the refusal, nor in what led to it."""
    token = proof()
    for attempt in (
        lambda: parse(CertificateBody, json.dumps({"csr": token, "proof": token}).encode()),
        lambda: parse(CertificateBody, token.encode()),
        lambda: read_proof(token + "." + token),
        lambda: read_proof(token.replace(".", "!")),
        lambda: tokens.from_text(token),
    ):
        with pytest.raises(CertauthError) as caught:
            attempt()
        error: BaseException | None = caught.value
        while error is not None:
            assert token.split(".")[2] not in f"{error!r} {error}"
            error = error.__cause__ if error.__cause__ is not None or error.__suppress_context__ else error.__context__


def test_tokens_and_requests() -> None:
    """A verified token and the request it came in name what they are about; the token itself is in neither."""
    place = Facility("als.example", clock=HandClock())
    alice = place.peer("alice")
    text = place.token(alice, "data", rights=["read /files/"])
    verified = TokenVerifier(place.trust()).verify(text, now=place.clock())
    asked = request("GET /files/x", token=text)
    for value in (verified, asked):
        assert text[:40] not in shown(value)
        assert text[-40:] not in shown(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A facility with all its keys."""
    with facility(tmp_path_factory.mktemp("secrets")) as made:
        yield made


def test_settings_and_authority(site: Site) -> None:
    """The settings hold paths of secrets, never secrets; what is loaded from them shows no key and no passphrase."""
    passphrase = authority.read_passphrase(site.settings, {})
    loaded = authority.load(site.settings, environment={}, allow_example_keys=False)
    for value in (site.settings, loaded, loaded.key_files):
        assert passphrase.decode() not in shown(value)
    signing = [loaded.key_files.first(use) for use in Use]
    for key in (loaded.issuing_key, loaded.log_key, loaded.feed_key, *signing):
        for secret in secrets_of(key):
            assert secret not in shown(loaded)
    assert passphrase.decode() not in site.settings.model_dump_json()


def test_servers_passphrase(site: Site) -> None:
    """What a server is started with may be logged at its start."""
    settings = ServerSettings(
        host="x", port=1, certificate=Path("c"), key=Path("k"), client_roots=lambda: b"", passphrase="correct horse"
    )
    assert "correct horse" not in shown(settings)


def test_key_files_errors(tmp_path: Path) -> None:
    """A wrong passphrase is not repeated."""
    key = generate(Algorithm.P256)
    save_private(tmp_path / "key.pem", key, passphrase=b"battery staple")
    with pytest.raises(CertauthError) as caught:
        load_private(tmp_path / "key.pem", passphrase=b"wrong horse", allow_example_keys=False)
    assert "horse" not in f"{caught.value!r} {caught.value} {caught.value.__cause__!r}"


def test_the_middleware(tmp_path: Path) -> None:
    """An app object ends up in many a traceback."""
    place = Facility("als.example", clock=HandClock())
    (tmp_path / "policy.toml").write_bytes(RULES)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        """Nothing."""

    made = PolicyMiddleware(app, policy=tmp_path / "policy.toml", trust=place.trust())
    for secret in secrets_of(place.token_key):
        assert secret not in shown(made)
