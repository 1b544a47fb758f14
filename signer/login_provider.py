"""What the signer, as an OpenID client, says to a provider: a code for tokens, and perhaps who that was (RFC 6749 §4.1.3).

The outbound edge of mediated logins, by way of ``signer.outbound``. Only the provider's own host, or a listed one, is told a
code, a token or the client's secret. What comes back is not believed here: the ID token is verified like any other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import quote_plus

from certauth.encoding import strict_json
from certauth.errors import AnswerError, KeyMaterialError, ProofError, UnavailableError
from certauth.files import read_private
from certauth.identity import Issuer
from signer.discovery import check_host
from signer.outbound import Answer, Outbound

_ERROR: Final = re.compile(r"[a-z_]{1,40}")
_BEARER: Final = re.compile(r"[A-Za-z0-9._~+/-]{1,16384}=*")  # RFC 6750 §2.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """An identity provider at which the signer itself is a client.

    ``secret_file``: the client's secret, read at each use; without one the client is public. ``hosts``: further
    ``host[:port]`` of its token and userinfo endpoints. ``own_callback``: its answers come to an address of its own
    (RFC 9700 §4.4.2.2). ``userinfo``: its userinfo endpoint is asked, too. ``same_address``: a login that is finished from
    another address than it was begun from has assurance 1.
    """

    issuer: Issuer
    secret_file: Path | None = None
    hosts: frozenset[str] = frozenset()
    own_callback: bool = False
    userinfo: bool = False
    same_address: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What a code was exchanged for; neither text is verified."""

    id_token: str = field(repr=False)
    access_token: str | None = field(repr=False)


async def exchange(
    provider: Provider, outbound: Outbound, endpoint: str, *, code: str, verifier: str, redirect_uri: str
) -> Tokens:
    """The tokens for an authorization code, by PKCE (RFC 7636 §4.5) and the client's secret if it has one.

    Raises ``UnavailableError`` (``provider-unavailable``), ``AnswerError`` (``provider-answer``), ``ProofError``
    (``exchange-refused``) or ``UnavailableError`` (``client-secret-unusable``).
    """
    _check_place(provider, endpoint, "token endpoint")
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri, "code_verifier": verifier}
    basic = None
    if provider.secret_file is None:
        form["client_id"] = provider.issuer.audience
    else:
        # Both are form-encoded before they become HTTP basic authentication (RFC 6749 §2.3.1).
        basic = (quote_plus(provider.issuer.audience), quote_plus(_secret(provider.secret_file)))
    try:
        answer = await outbound.post(endpoint, form, basic=basic)
    except UnavailableError as error:
        raise _unavailable(error.message) from error
    document = _document(answer)
    match document.get("id_token"), document.get("access_token"):
        case str(id_token), str() | None as access_token:
            return Tokens(id_token=id_token, access_token=access_token)
        case _:
            raise _unusable("it holds no ID token, or an access token that is no text")


async def fetch_userinfo(
    provider: Provider, outbound: Outbound, endpoint: str | None, access_token: str | None
) -> Mapping[str, object]:
    """The claims of the userinfo endpoint (OpenID Connect Core §5.3), unsigned. Raises as ``exchange`` does."""
    if endpoint is None or access_token is None or not _BEARER.fullmatch(access_token):
        raise _unusable("it has no userinfo endpoint, or gave no access token for it")
    _check_place(provider, endpoint, "userinfo endpoint")
    try:
        answer = await outbound.get(endpoint, bearer=access_token)
    except UnavailableError as error:
        raise _unavailable(error.message) from error
    return _document(answer)


def _secret(path: Path) -> bytes:
    try:
        return read_private(path).strip()
    except KeyMaterialError as error:  # who logs in must not read where the signer keeps what
        raise UnavailableError(
            "client-secret-unusable",
            "the signer cannot use its client secret for this provider",
            hint="those who run the signer look at client_secret_file: a file of mode 0600 that belongs to the signer",
            retry_after=60,
        ) from error


def _document(answer: Answer) -> dict[str, object]:
    if answer.status not in (200, 400, 401, 403):
        raise _unavailable(f"it answered {answer.status}")
    if answer.content_type != "application/json":
        raise _unusable(f"it is {answer.status} and something else than JSON")
    try:
        document = strict_json(answer.body)
    except ValueError:
        raise _unusable("it is not strict JSON") from None  # the parser's words may quote it
    if not isinstance(document, dict):
        raise _unusable("it is not a JSON object")
    if answer.status != 200:
        raise ProofError(
            "exchange-refused",
            f"the identity provider refused the signer: {_error_of(document)}",
            hint="log in again; if it stays, the signer's client is registered differently at the provider",
        )
    return document


def _check_place(provider: Provider, url: str, what: str) -> None:
    """A discovery document that sends codes or the client's secret elsewhere is not followed."""
    try:
        check_host(url, what, issuer=provider.issuer.url, listed=provider.hosts)
    except UnavailableError as error:
        raise _unusable(error.message) from error


def _error_of(document: Mapping[str, object]) -> str:
    """The error code of RFC 6749 §5.2, if it looks like one: descriptions are for developers and may quote the request."""
    error = document.get("error")
    return error if isinstance(error, str) and _ERROR.fullmatch(error) else "it does not say why"


def _unavailable(why: str) -> UnavailableError:
    return UnavailableError(
        "provider-unavailable", f"the identity provider cannot be asked: {why}", hint="try again later", retry_after=30
    )


def _unusable(why: str) -> AnswerError:
    return AnswerError(
        "provider-answer",
        f"the identity provider's answer cannot be used: {why}",
        hint="those who run the signer find out with 'certauth signer issuer check'",
    )
