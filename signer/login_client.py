"""The signer as an OpenID client, for one login at a time: the request to the provider, and the proof made of its answer.

OpenID Connect Core §3.1 with PKCE S256 (RFC 7636), ``iss`` (RFC 9207), and against mix-up either that or an address of its own
for each provider (RFC 9700 §4.4).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlencode

from certauth.clock import Clock
from certauth.encoding import b64url
from certauth.errors import Refused, RequestError, UnavailableError
from certauth.identity import VerifiedIdentity, read_proof, verify_id_token
from certauth.identity.binding import BoundKey
from certauth.identity.userinfo import with_userinfo
from signer.discovery import Discovery
from signer.jwks import KeySource
from signer.login_provider import Provider, exchange, fetch_userinfo
from signer.login_state import AGAIN, Answer, Login

CALLBACK: Final = "/login/callback"
_ERROR: Final = re.compile(r"[a-z_]{1,40}")


class LoginClient:
    """The signer at all providers to which it leads people. ``public_url`` is its origin."""

    def __init__(self, *, public_url: str, providers: Iterable[Provider], keys: KeySource, clock: Clock) -> None:
        self._public_url, self._keys, self._clock = public_url, keys, clock
        self._providers = {provider.issuer.id: provider for provider in providers}

    def provider(self, issuer: str | None) -> Provider:
        """The provider with this id, or the only one. Raises ``RequestError`` (``issuer-needed``, ``issuer-not-mediated``)."""
        if issuer is None and len(self._providers) == 1:
            return next(iter(self._providers.values()))
        if issuer is None:
            names = ", ".join(sorted(self._providers)) or "there is none"
            raise RequestError("issuer-needed", "the login does not say at which provider", hint=f"one of: {names}")
        if issuer not in self._providers:
            raise RequestError(
                "issuer-not-mediated",
                "this signer does not lead to that identity provider",
                hint="name one whose flows contain 'mediated', or log in in another way",
            )
        return self._providers[issuer]

    def redirect_uri(self, provider: Provider) -> str:
        """Where the provider sends browsers back to; it is registered there to the letter."""
        own = f"/{provider.issuer.id}" if provider.own_callback else ""
        return f"{self._public_url}{CALLBACK}{own}"

    async def discovery(self, provider: Provider) -> Discovery:
        """The provider's endpoints, if its answers can be told from those of the others.

        Raises ``UnavailableError`` (``issuer-unavailable``) or ``Refused`` (``issuer-mix-up``).
        """
        found = await self._keys.discovery(provider.issuer.url)
        if found.authorization_endpoint is None or found.token_endpoint is None:
            raise UnavailableError(
                "issuer-unavailable",
                "the identity provider publishes no usable authorization or token endpoint",
                hint="'certauth signer issuer check' shows what is wrong with it",
                retry_after=60,
            )
        if len(self._providers) > 1 and not (found.names_itself or provider.own_callback):
            raise Refused(
                "issuer-mix-up",
                "the identity provider's answers could not be told from those of another one (RFC 9207)",
                hint="those who run the signer set own_callback = true for it, and register "
                f"{self._public_url}{CALLBACK}/{provider.issuer.id} there",
            )
        return found

    def authorization_url(self, login: Login, discovery: Discovery, *, state: str) -> str:
        """Where the browser logs in, for this login and its key (OpenID Connect Core §3.1.2.1)."""
        issuer = login.provider.issuer
        parameters = {
            "response_type": "code",
            "client_id": issuer.audience,
            "redirect_uri": self.redirect_uri(login.provider),
            "scope": " ".join(issuer.scopes),
            "state": state,
            "nonce": self._key(login).nonce(),
            "code_challenge": b64url(hashlib.sha256(login.verifier.encode()).digest()),
            "code_challenge_method": "S256",
        }
        if issuer.max_authentication_age is not None:
            parameters["max_age"] = str(int(issuer.max_authentication_age.total_seconds()))
        endpoint = discovery.authorization_endpoint or ""
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(parameters)}"

    def code_of(self, login: Login, answer: Answer, *, issuer: str | None) -> str:
        """The code in an answer that came to the address of ``issuer``, or to the common one.

        Raises ``Refused``: ``issuer-mismatch``, ``provider-denied``, ``provider-refused``.
        """
        provider = login.provider
        expected = provider.issuer.id if provider.own_callback else None
        must_name_itself = login.discovery is None or login.discovery.names_itself
        named = provider.issuer.url if must_name_itself or answer.iss is not None else None
        if issuer != expected or answer.iss != named:
            raise Refused("issuer-mismatch", "another provider answered than the one that was asked", hint=AGAIN)
        if answer.error == "access_denied":
            raise Refused("provider-denied", "the identity provider says that the login was refused", hint=AGAIN)
        if answer.error is not None or answer.code is None:
            what = answer.error if answer.error and _ERROR.fullmatch(answer.error) else "an error"
            raise Refused("provider-refused", f"the identity provider answered with {what}", hint=AGAIN)
        return answer.code

    async def prove(self, login: Login, code: str) -> VerifiedIdentity:
        """From a code to a verified identity, bound to the login's key. Raises ``CertauthError`` with the reason."""
        provider, issuer = login.provider, login.provider.issuer
        outbound, discovery = self._keys.outbound(issuer.url), login.discovery or await self.discovery(provider)
        tokens = await exchange(
            provider,
            outbound,
            discovery.token_endpoint or "",
            code=code,
            verifier=login.verifier,
            redirect_uri=self.redirect_uri(provider),
        )
        unverified, key = read_proof(tokens.id_token), self._key(login)
        identity = await self._keys.verified(
            issuer.url,
            unverified.kid,
            lambda known: verify_id_token(unverified, issuer=issuer, keys=known, key=key, now=self._clock()),
        )
        if provider.userinfo:
            more = await fetch_userinfo(provider, outbound, discovery.userinfo_endpoint, tokens.access_token)
            identity = with_userinfo(identity, more, issuer=issuer)
        return identity

    def _key(self, login: Login) -> BoundKey:
        return BoundKey(signer_id=self._public_url, spki=login.spki, salt=login.salt)
