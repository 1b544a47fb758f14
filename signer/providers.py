"""The configured identity providers, as each part that talks to them wants to know them."""

from __future__ import annotations

from collections.abc import Iterable

from certauth.errors import ConfigError
from signer.introspection import IntrospectionSource
from signer.login_provider import Provider
from signer.settings import IssuerSettings, Settings
from signer.sources import IssuerSource


def key_sources(settings: Settings) -> Iterable[IssuerSource]:
    """Where the keys of each are."""
    return [source_of(issuer) for issuer in settings.issuer]


def source_of(issuer: IssuerSettings) -> IssuerSource:
    """Where the keys of one are."""
    return IssuerSource(
        url=issuer.url,
        ca_file=issuer.ca_file,
        jwks_hosts=frozenset(issuer.allowed_hosts),
        jwks_file=issuer.jwks_file,
        jwks_uri=issuer.jwks_uri,
        bearer_file=issuer.bearer_file,
        proxy=issuer.proxy,
        allow_loopback_http=issuer.allow_loopback_http,
    )


def introspection_sources(settings: Settings) -> Iterable[IntrospectionSource]:
    """Those that are asked about opaque access tokens; ``ConfigError`` (``settings-invalid``) without a secret for asking."""
    for issuer in settings.issuer:
        if not issuer.introspection:
            continue
        if issuer.client_secret_file is None:
            raise ConfigError(
                "settings-invalid",
                f"issuer {issuer.id!r}: introspection needs client_secret_file",
                hint="name the file with client_secret_file",
            )
        if not _is_described(issuer):
            raise ConfigError(
                "settings-invalid",
                f"issuer {issuer.id!r}: introspection needs the discovery document, which jwks_file and jwks_uri replace",
                hint="leave out introspection, or jwks_file and jwks_uri",
            )
        yield IntrospectionSource(
            url=issuer.url,
            client_id=issuer.client_id,
            secret_file=issuer.client_secret_file,
            hosts=frozenset(issuer.allowed_hosts),
        )


def login_providers(settings: Settings) -> Iterable[Provider]:
    """Those at which people log in through this signer."""
    return [
        Provider(
            issuer=issuer.own_client(),
            secret_file=issuer.client_secret_file,
            hosts=frozenset(issuer.allowed_hosts),
            own_callback=issuer.own_callback,
            userinfo=issuer.userinfo,
            same_address=issuer.mediated_same_address,
        )
        for issuer in settings.issuer
        if offers_mediated_login(issuer)
    ]


def offers_mediated_login(issuer: IssuerSettings) -> bool:
    """Whether people can log in there through this signer: it must describe itself, and sign ID tokens with our nonce."""
    return issuer.mediated and _is_described(issuer) and _signs_nonces(issuer)


def flows_of(issuer: IssuerSettings) -> list[str]:
    """The ways in which a client can log in there, as the metadata names them.

    Where the client has a secret, the signer alone can be that client: programs of users have none, and would be turned away
    after their users had logged in. They need a client of their own there.
    """
    public = issuer.client_secret_file is None or issuer.public_client_id is not None
    flows = ["code"] if public and _signs_nonces(issuer) else []
    flows += ["mediated"] if offers_mediated_login(issuer) else []
    return [*flows, "device"] if public and issuer.device and "access_token" in issuer.kinds else flows


def _signs_nonces(issuer: IssuerSettings) -> bool:
    return "id_token" in issuer.kinds and "nonce" in issuer.bindings


def _is_described(issuer: IssuerSettings) -> bool:
    """Whether its discovery document is read; where its keys are configured, nothing is discovered."""
    return issuer.jwks_file is None and issuer.jwks_uri is None
