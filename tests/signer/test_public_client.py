"""Two clients of the facility at one provider: the signer's own, with a secret, and a public one for users' programs.

Each token here is signed by the provider; what differs is for whom. What belongs to one client is refused as the other's.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from certauth import keys
from certauth.clock import system_clock
from certauth.errors import ProofError
from certauth.identity import VerifiedIdentity, jwk_thumbprint, nonce_for
from certauth.identity.binding import jwk_of
from certauth.keys import Algorithm, SoftwareKey
from signer.discovery import Discovery
from signer.jwks import KeySource
from signer.login_client import LoginClient
from signer.login_state import Login
from signer.providers import flows_of, introspection_sources, key_sources, login_providers
from signer.settings import IssuerSettings, Settings
from tests.signer.kit import CLIENT_ID, Site, facility, make_csr, run_cli
from tests.signer.test_jwks import made_once
from tests.simulator.hostile_provider import HostileProvider, hostile_provider, jwks

PUBLIC = "programs-of-users"
AUDIENCE = "https://signer.example"
KEY = keys.generate(Algorithm.P256)
BASE: dict[str, Any] = {"id": "lab", "url": "https://idp.example", "client_id": "ours", "public_client_id": PUBLIC}


def settings(**members: Any) -> IssuerSettings:
    """An issuer with two clients."""
    return IssuerSettings.model_validate({**BASE, **members})


# --- what may be configured -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"public_client_id": "ours"}, "another client than client_id"),
        ({"public_client_id": ""}, "at least 1 character"),
        ({"bindings": ["none"], "assurance": 1}, "bound to a key"),
        ({"bindings": ["nonce", "none"], "assurance": 1}, "bound to a key"),
        ({"kinds": ["workload"], "bindings": ["audience"]}, "logins of people"),
        # An ID token of either client is for it: it would pass as an access token that does not say that it is one.
        *(
            (
                {
                    "kinds": ["access_token"],
                    "bindings": ["dpop"],
                    "untyped_access_tokens": True,
                    "access_token_audience": audience,
                },
                "other than our client id",
            )
            for audience in ("ours", PUBLIC)
        ),
    ],
)
def test_what_would_mix_them_up_is_no_setting(members: dict[str, Any], words: str) -> None:
    """Refused when the settings are read."""
    with pytest.raises(ValidationError, match=words):
        settings(**members)


def test_each_is_where_it_belongs() -> None:
    """Programs are offered the public one; the signer logs in and asks about tokens as itself."""
    made = settings(
        client_secret_file=Path("secret"),
        kinds=["id_token", "access_token"],
        bindings=["nonce", "dpop"],
        access_token_audience=AUDIENCE,
        device=True,
        introspection=True,
    )
    assert flows_of(made) == ["code", "mediated", "device"]
    assert (made.program_client_id, made.issuer().audience, made.own_client().audience) == (PUBLIC, PUBLIC, "ours")
    whole = Settings(trust_domain="als.example", public_url=AUDIENCE, issuer=(made,))
    (provider,), (asked,) = login_providers(whole), introspection_sources(whole)
    assert (provider.issuer.audience, asked.client_id) == ("ours", "ours")
    alone = settings(public_client_id=None, client_secret_file=Path("secret"))
    assert (flows_of(alone), alone.program_client_id) == (["mediated"], "ours")


# --- at the door ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A running facility whose provider signs ID tokens and access tokens for both clients."""
    with facility(tmp_path_factory.mktemp("two-clients")) as made:
        more = f'public_client_id = "{PUBLIC}"\nkinds = ["id_token", "access_token"]\nbindings = ["nonce", "cnf", "dpop"]\n'
        more += f'access_token_audience = "{AUDIENCE}"\nalgorithms = ["ES256"]\n'
        made.settings_file.write_text(made.settings_file.read_text().replace("[[issuer]]\n", f"[[issuer]]\n{more}"))
        made.enroll("alice")
        with made.serving():
            yield made


def cnf(key: SoftwareKey) -> dict[str, object]:
    """What binds a token to the key."""
    return {"jkt": jwk_thumbprint(jwk_of(key.public_key))}


def answer(site: Site, body: dict[str, Any]) -> str:
    """``granted``, or the code of the refusal."""
    with site.client() as client:
        found = client.post("/v1/certificates", json=body)
    return "granted" if found.status_code == 201 else str(found.json()["code"])


def test_programs_are_told_of_their_own_client(site: Site) -> None:
    """The signer's own is nobody else's business."""
    with site.client() as client:
        text = client.get("/.well-known/certauth").text
    assert (PUBLIC in text, CLIENT_ID in text) == (True, False)


@pytest.mark.parametrize(
    ("claims", "outcome"),
    [
        ({"aud": PUBLIC}, "granted"),
        ({"aud": [PUBLIC, "another"], "azp": PUBLIC}, "granted"),
        ({"aud": CLIENT_ID}, "wrong-audience"),
        ({"aud": CLIENT_ID, "azp": PUBLIC}, "wrong-audience"),
        ({"aud": [CLIENT_ID, PUBLIC]}, "wrong-audience"),
        ({"aud": [CLIENT_ID, PUBLIC], "azp": CLIENT_ID}, "wrong-audience"),
        ({"aud": PUBLIC, "azp": CLIENT_ID}, "wrong-audience"),
        ({"aud": PUBLIC, "nonce": ...}, "key-not-bound"),
    ],
)
def test_an_id_token_is_for_the_public_client(site: Site, claims: dict[str, Any], outcome: str) -> None:
    """One for the signer's own client was never given to a program: whoever brings it has it from elsewhere."""
    assert answer(site, site.body("alice", KEY, **claims)) == outcome


@pytest.mark.parametrize(
    ("claims", "outcome"),
    [
        ({"client_id": PUBLIC}, "granted"),
        ({"client_id": CLIENT_ID}, "wrong-audience"),
        ({"client_id": PUBLIC, "azp": CLIENT_ID}, "wrong-audience"),
        ({"client_id": PUBLIC, "aud": PUBLIC}, "wrong-audience"),
        ({"client_id": PUBLIC, "cnf": ...}, "key-not-bound"),
    ],
)
def test_an_access_token_was_asked_for_by_the_public_client(site: Site, claims: dict[str, Any], outcome: str) -> None:
    """As the device flow gives it to a program, bound by DPoP."""
    now = int(site.clock().timestamp())
    members: dict[str, Any] = {
        "iss": site.provider.issuer,
        "sub": "alice",
        "aud": AUDIENCE,
        "iat": now,
        "exp": now + 300,
        "jti": secrets.token_hex(8),
        "cnf": cnf(KEY),
    }
    members = {name: value for name, value in (members | claims).items() if value is not ...}
    token = site.provider_key.sign(members, site.provider_key.header(typ="at+jwt"))
    body = {"csr": make_csr(KEY), "proof": {"type": "access_token", "token": token}}
    assert answer(site, body) == outcome


# --- through the signer ---------------------------------------------------------------------------------------------


@pytest.fixture
def provider() -> Iterator[HostileProvider]:
    """A provider with a token endpoint."""
    with hostile_provider() as running:
        running.jwks = jwks(made_once("ES256", "a"))
        yield running


def mediated(provider: HostileProvider, **claims: object) -> VerifiedIdentity:
    """What the signer makes of the ID token that it is given for a code, as the client with the secret."""
    made = settings(url=provider.issuer, allow_loopback_http=True)
    whole = Settings(trust_domain="als.example", public_url=AUDIENCE, issuer=(made,))
    spki, salt, now = keys.spki(KEY.public_key), bytes(16), int(time.time())
    members = {"iss": provider.issuer, "sub": "alice", "iat": now, "exp": now + 300}
    members["nonce"] = nonce_for(signer_id=AUDIENCE, spki=spki, salt=salt)
    provider.says = {"id_token": made_once("ES256", "a").sign(members | claims)}

    async def run() -> VerifiedIdentity:
        source = KeySource(key_sources(whole))
        client = LoginClient(public_url=AUDIENCE, providers=login_providers(whole), keys=source, clock=system_clock)
        login = Login(
            id="login",
            provider=client.provider(None),
            spki=spki,
            salt=salt,
            host="here",
            address=None,
            secret_digest=b"",
            code="",
            expires_at=0,
            next_poll=0,
        )
        document = f'{{"issuer": "{provider.issuer}", "jwks_uri": "{provider.issuer}/jwks", '
        document += f'"token_endpoint": "{provider.issuer}/token"}}'
        login.discovery = Discovery.parse(document.encode(), issuer=provider.issuer, allow_loopback_http=True)
        try:
            return await client.prove(login, "a-code")
        finally:
            await source.aclose()

    return asyncio.run(run())


def test_what_the_signer_fetches_is_for_its_own_client(provider: HostileProvider) -> None:
    """It asks as that client."""
    assert mediated(provider, aud="ours").subject == "alice"
    assert provider.forms[-1]["client_id"] == "ours"


@pytest.mark.parametrize("claims", [{"aud": PUBLIC}, {"aud": ["ours", PUBLIC]}, {"aud": ["ours", PUBLIC], "azp": PUBLIC}])
def test_a_token_of_the_public_client_is_no_mediated_login(provider: HostileProvider, claims: dict[str, object]) -> None:
    """A provider that answers with it has mixed its clients up."""
    with pytest.raises(ProofError) as refused:
        mediated(provider, **claims)
    assert refused.value.code == "wrong-audience"


def test_it_is_added_and_listed(tmp_path: Path) -> None:
    """``issuer add --public-client-id`` writes it where ``issuer list`` finds it."""
    file = tmp_path / "signer.toml"
    file.write_text('trust_domain = "als.example"\npublic_url = "https://signer.als.example"\n')
    options = ("--client-id", "ours", "--public-client-id", PUBLIC, "--reason", "a test", "--settings", file)
    run_cli("issuer", "add", "https://idp.example", "--id", "lab", "--offline", *options)
    (row,) = run_cli("issuer", "list", "--offline", "--settings", file)["issuers"]
    assert (row["client_id"], row["public_client_id"]) == ("ours", PUBLIC)
