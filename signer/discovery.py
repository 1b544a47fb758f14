"""What an OpenID provider says about itself (OpenID Connect Discovery §3, RFC 8414, RFC 9207), read without believing it all.

The document speaks for one issuer, to the letter, or it is refused. An endpoint that we could not use safely - not https,
with a user name in it - is left out, so that it cannot be used by mistake, and ``ignored`` says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from certauth.encoding import strict_json
from certauth.errors import ConfigError, UnavailableError
from certauth.identity.issuers import check_url

ENDPOINTS: Final = (
    "jwks_uri",
    "authorization_endpoint",
    "token_endpoint",
    "userinfo_endpoint",
    "introspection_endpoint",
    "device_authorization_endpoint",
)
_MAX_WORDS: Final = 200
_MAX_WORD: Final = 200
_HINT: Final = "'certauth signer issuer check' shows what is wrong with it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """A provider's discovery document. Endpoints are https URLs (or loopback http where allowed), or ``None``.

    ``names_itself``: its redirects carry ``iss`` (RFC 9207), whose absence is then an attack. Lists hold printable words.
    """

    issuer: str
    jwks_uri: str
    authorization_endpoint: str | None = None
    token_endpoint: str | None = None
    userinfo_endpoint: str | None = None
    introspection_endpoint: str | None = None
    device_authorization_endpoint: str | None = None
    names_itself: bool = False
    code_challenge_methods: frozenset[str] = frozenset()
    dpop_algorithms: frozenset[str] = frozenset()
    id_token_algorithms: frozenset[str] = frozenset()
    response_types: frozenset[str] = frozenset()
    grant_types: frozenset[str] = frozenset({"authorization_code", "implicit"})
    token_auth_methods: frozenset[str] = frozenset({"client_secret_basic"})
    introspection_auth_methods: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()
    claims: frozenset[str] = frozenset()
    acr_values: frozenset[str] = frozenset()
    ignored: tuple[str, ...] = ()

    @classmethod
    def parse(cls, data: bytes, *, issuer: str, allow_loopback_http: bool = False) -> Discovery:
        """Read the document that ``issuer`` published.

        Raises ``UnavailableError`` (``issuer-unavailable``) if it is none, speaks for another issuer, or has no key set that
        could be fetched safely.
        """
        document = _document(data)
        if document.get("issuer") != issuer or not isinstance(document.get("jwks_uri"), str):
            raise UnavailableError(
                "issuer-unavailable", "its discovery document names another issuer, or no key set", hint=_HINT
            )
        ignored: list[str] = []
        urls: dict[str, Any] = {
            name: _url(document, name, ignored, allow_loopback_http=allow_loopback_http) for name in ENDPOINTS
        }
        jwks_uri = urls.pop("jwks_uri")
        if jwks_uri is None:
            raise UnavailableError("issuer-unavailable", f"its key set is not at an https address: {ignored[0]}", hint=_HINT)
        fields: dict[str, Any] = {field: _words(document[member]) for member, field in _LISTS.items() if member in document}
        return cls(
            issuer=issuer,
            jwks_uri=jwks_uri,
            names_itself=document.get("authorization_response_iss_parameter_supported") is True,
            ignored=tuple(ignored),
            **urls,
            **fields,
        )

    def endpoints(self) -> dict[str, str]:
        """The endpoints there are, by name."""
        return {name: url for name in ENDPOINTS if (url := getattr(self, name)) is not None}

    def moved_since(self, earlier: Discovery) -> tuple[str, ...]:
        """The names of the endpoints that are elsewhere now, or gone."""
        now = self.endpoints()
        return tuple(name for name, url in earlier.endpoints().items() if now.get(name) != url)


_LISTS: Final[Mapping[str, str]] = {
    "code_challenge_methods_supported": "code_challenge_methods",
    "dpop_signing_alg_values_supported": "dpop_algorithms",
    "id_token_signing_alg_values_supported": "id_token_algorithms",
    "response_types_supported": "response_types",
    "grant_types_supported": "grant_types",
    "token_endpoint_auth_methods_supported": "token_auth_methods",
    "introspection_endpoint_auth_methods_supported": "introspection_auth_methods",
    "scopes_supported": "scopes",
    "claims_supported": "claims",
    "acr_values_supported": "acr_values",
}
"""Members that are lists, and the fields they fill."""


def discovery_url(issuer: str) -> str:
    """Where ``issuer`` publishes its document (OpenID Connect Discovery §4.1)."""
    return issuer.rstrip("/") + "/.well-known/openid-configuration"


def check_host(url: str, what: str, *, issuer: str, listed: Iterable[str]) -> None:
    """Raise ``UnavailableError`` (``issuer-unavailable``) unless ``url`` is on the issuer's own host and port or a listed one;
    ``listed`` are ``host`` (port 443) or ``host:port``.
    """
    if authority_of(url) not in {authority_of(issuer), *(authority_of(f"https://{host}") for host in listed)}:
        raise UnavailableError(
            "issuer-unavailable",
            f"its {what} is on a host that is not listed",
            hint="if it belongs there, list the host in the issuer's allowed_hosts",
        )


def authority_of(url: str) -> tuple[str, int]:
    """Host and port of a URL."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443)


def _document(data: bytes) -> dict[str, object]:
    match strict_json(data):
        case dict(document) if "issuer" in document:
            return document
        case _:
            raise UnavailableError("issuer-unavailable", "its discovery document is not one", hint=_HINT)


def _url(document: Mapping[str, object], name: str, ignored: list[str], *, allow_loopback_http: bool) -> str | None:
    value = document.get(name)
    if value is None:
        return None
    try:
        if not isinstance(value, str):
            raise ConfigError("issuer-invalid", "it is not a text", hint=_HINT)
        check_url(value, allow_loopback_http=allow_loopback_http)
    except ConfigError as error:
        ignored.append(f"{name}: {error.message.rpartition(': ')[2]}")
        return None
    return value


def _words(value: object) -> frozenset[str]:
    """The printable words of a list; anything else is as good as absent, and what is longer than any real one is cut."""
    if not isinstance(value, list):
        return frozenset()
    return frozenset(
        word for word in value[:_MAX_WORDS] if isinstance(word, str) and len(word) <= _MAX_WORD and word.isprintable()
    )
