"""An identity provider from a client's side: its own description, and the forms sent to its endpoints."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from certauth.client.dpop import Prover
from certauth.client.http import Answer, Client, json_object, origin_of, text_member
from certauth.errors import AnswerError, CertauthError, UnavailableError, UsageError

_BUSY = frozenset({429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """Where things are at an identity provider. ``names_itself``: its answers must carry ``iss`` (RFC 9207 §2.3)."""

    issuer: str
    authorization: str
    token: str
    device_authorization: str | None
    names_itself: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """An OAuth error (RFC 6749 §5.2): the code of the standard, and what the provider says to people."""

    error: str
    said: str


def discover(client: Client, url: str) -> Provider:
    """The provider's own description (OpenID Connect Discovery §4), refused unless it is that of ``url``.

    Raises ``AnswerError``: ``wrong-issuer`` for another issuer's, or an endpoint that is not https.
    """
    members = client.json("GET", url.rstrip("/") + "/.well-known/openid-configuration")
    if members.get("issuer") != url:
        raise AnswerError(
            "wrong-issuer",
            f"the identity provider at {url} describes itself as another issuer",
            hint="tell those who run the signer: its settings must name the issuer to the letter",
        )
    found = {name: text_member(members, name, url) for name in ("authorization_endpoint", "token_endpoint")}
    if "device_authorization_endpoint" in members:
        found["device_authorization_endpoint"] = text_member(members, "device_authorization_endpoint", url)
    for endpoint in found.values():
        try:
            origin_of(endpoint)
        except UsageError as error:
            raise AnswerError(
                "wrong-issuer",
                f"the identity provider at {url} names an endpoint that is not https",
                hint="tell those who run the provider",
            ) from error
    return Provider(
        issuer=url,
        authorization=found["authorization_endpoint"],
        token=found["token_endpoint"],
        device_authorization=found.get("device_authorization_endpoint"),
        names_itself=members.get("authorization_response_iss_parameter_supported") is True,
    )


def send_form(client: Client, url: str, form: Mapping[str, str], *, prover: Prover | None = None) -> dict[str, object] | Denial:
    """POST a form to an endpoint of the provider and return the members of its answer, or why it denied.

    With a ``prover`` the request carries a DPoP proof, and is made once more with the nonce that the provider asks for.
    Raises ``UnavailableError`` (``provider-busy``) if it cannot answer now, ``AnswerError`` if it answers with nonsense.
    """
    answer = _send(client, url, form, prover)
    denial = _denial(answer, url)
    if prover is not None and prover.supplied(answer.dpop_nonce) and denial is not None and denial.error == "use_dpop_nonce":
        answer = _send(client, url, form, prover)
        prover.supplied(answer.dpop_nonce)
        denial = _denial(answer, url)
    return json_object(answer.body, url) if denial is None else denial


def _send(client: Client, url: str, form: Mapping[str, str], prover: Prover | None) -> Answer:
    headers = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
    if prover is not None:
        headers["dpop"] = prover.proof("POST", url)
    answer = client.send("POST", url, headers=headers, content=urlencode(form).encode())
    if answer.status in _BUSY:
        raise UnavailableError(
            "provider-busy",
            f"the identity provider at {origin_of(url)} cannot answer now (status {answer.status})",
            hint="run the command again later",
            retry_after=answer.retry_after,
        )
    return answer


def _denial(answer: Answer, url: str) -> Denial | None:
    if answer.status == 200:
        return None
    error = said = ""
    with contextlib.suppress(CertauthError):
        members = json_object(answer.body, url)
        error = text_member(members, "error", url, limit=100)
        said = text_member(members, "error_description", url, limit=200)
    return Denial(error=error, said=said or error)
