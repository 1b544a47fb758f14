"""``signer.providers``: which ways of logging in are offered where, so that nobody is sent on one that ends in a refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from certauth.errors import ConfigError
from signer.providers import flows_of, introspection_sources, key_sources, login_providers
from signer.settings import IssuerSettings, Settings

BOTH: dict[str, Any] = {
    "kinds": ["id_token", "access_token"],
    "access_token_audience": "https://signer.example",
    "device": True,
}
BOTH |= {"bindings": ["nonce", "dpop"]}


def issuer(**more: Any) -> IssuerSettings:
    """An issuer with these settings."""
    return IssuerSettings.model_validate({"id": "campus", "url": "https://idp.example", "client_id": "certauth", **more})


def settings(*issuers: IssuerSettings) -> Settings:
    """A facility with these issuers."""
    return Settings(trust_domain="als.example", public_url="https://signer.example", issuer=issuers)


@pytest.mark.parametrize(
    ("more", "flows"),
    [
        ({}, ["code", "mediated"]),
        ({"mediated": False}, ["code"]),
        ({"kinds": ["workload"], "bindings": ["audience"]}, []),
        ({"bindings": ["cnf"]}, []),
        ({"device": True}, ["code", "mediated"]),
        (BOTH, ["code", "mediated", "device"]),
        # Users' programs have no secret: they would be turned away after their users had logged in.
        (BOTH | {"client_secret_file": Path("secret")}, ["mediated"]),
        # There is no discovery document of which the signer knew the endpoints.
        ({"jwks_file": Path("jwks.json")}, ["code"]),
        ({"jwks_uri": "https://idp.example/jwks"}, ["code"]),
    ],
)
def test_what_is_offered(more: dict[str, Any], flows: list[str]) -> None:
    """The metadata names what works, and the signer is a client exactly where it says that it leads people there."""
    made = issuer(**more)
    assert flows_of(made) == flows
    assert len(list(login_providers(settings(made)))) == flows.count("mediated")


def test_settings_reach_the_parts_that_need_them() -> None:
    """Hosts, files and switches go where they are used."""
    made = issuer(
        allowed_hosts=["keys.example"], client_secret_file=Path("secret"), own_callback=True, userinfo=True, proxy="http://p:1"
    )
    (source,), (provider,) = key_sources(settings(made)), login_providers(settings(made))
    assert (source.jwks_hosts, source.proxy) == (frozenset({"keys.example"}), "http://p:1")
    assert (provider.hosts, provider.own_callback, provider.userinfo) == (frozenset({"keys.example"}), True, True)
    assert provider.secret_file == Path("secret")


def test_who_is_asked_about_tokens() -> None:
    """Those that are switched on; one without a secret, or without a discovery document, cannot be."""
    asking = issuer(client_secret_file=Path("secret"), introspection=True)
    other = issuer(id="other", url="https://other.example")
    assert [source.url for source in introspection_sources(settings(asking, other))] == ["https://idp.example"]
    for wrong in (
        asking.model_copy(update={"client_secret_file": None}),
        asking.model_copy(update={"jwks_file": Path("jwks.json")}),
        asking.model_copy(update={"jwks_uri": "https://idp.example/jwks"}),
    ):
        with pytest.raises(ConfigError) as caught:
            list(introspection_sources(settings().model_copy(update={"issuer": (wrong,)})))
        assert caught.value.code == "settings-invalid"
