"""Step 4, token: the one token a request carries -> a ``VerifiedToken``, on every request anew.

A token is looked for in three places and must be in at most one of them: ``Authorization: Bearer <token>`` (RFC 6750 §2.1),
``Biscuit: <token>``, and, because browsers cannot set headers on a WebSocket, an offered subprotocol
``certauth.bearer.<token>``. Never in the query: addresses are logged, kept in histories and sent on as referrers.

What decoding, linting and checking the signatures came to is kept, under exactly the presented text and the
generation of trust; the dates and the revocation of every block are looked at each time.
"""

from __future__ import annotations

from datetime import datetime

from certauth.clock import rfc3339
from certauth.errors import RequestError, RevokedError, TokenError
from certauth.names import Principal
from certauth.tokens.codec import decode, from_text
from certauth.tokens.verify import VerifiedToken, verify
from policy.cache import Cache
from policy.request import AccessRequest
from policy.trust import Trust, TrustState

SUBPROTOCOL = "certauth.bearer."
"""What the subprotocol that carries a token begins with."""
_BEARER = "bearer"
REMEMBERED = 4096
"""Verified tokens kept at most."""


def find_token(request: AccessRequest) -> str | None:
    """The token that the request carries, unverified; ``None`` if it carries none.

    Raises ``RequestError`` ``token-ambiguous`` for more than one: two parts of a system that pick different ones would decide
    different questions. Other schemes of ``Authorization`` are the app's own business and are not looked at.
    """
    # Latin-1 maps each byte to one character; whatever is not base64url is refused by the decoder.
    found = [header.decode("latin-1").strip()[len(_BEARER) :].strip() for header in request.authorization if is_bearer(header)]
    found += [value.decode("latin-1").strip() for value in request.biscuit]
    found += [name.removeprefix(SUBPROTOCOL) for name in request.subprotocols if name.startswith(SUBPROTOCOL)]
    if len(found) > 1:
        raise RequestError("token-ambiguous", "the request carries more than one token", hint="send exactly one")
    return found[0] if found else None


def is_bearer(value: bytes) -> bool:
    """Whether an ``Authorization`` field value is a bearer credential. The scheme is case-insensitive (RFC 9110 §11.1)."""
    scheme, _, _ = value.strip().partition(b" ")
    return scheme.lower() == b"bearer"


class TokenVerifier:
    """Verifies presented tokens against the trust of this door."""

    def __init__(self, trust: Trust, *, remembered: int = REMEMBERED) -> None:
        self._trust = trust
        self._cache: Cache[VerifiedToken] = Cache(remembered)

    def verify(self, unverified_token: str, *, now: datetime, state: TrustState | None = None) -> VerifiedToken:
        """The token's content: signed by a trusted key, in its time, not withdrawn. Whose hands it is in is not looked at.

        ``state`` is the trust the request began with; by default, that of now. Raises ``TokenError`` (the codes of
        ``certauth.tokens``, ``token-expired``, ``token-not-yet-valid``, ``token-user``) and ``RevokedError``
        (``token-revoked``).
        """
        state = state or self._trust.state
        # 1. Size, form, structure, signatures.
        key = (unverified_token, state.generation)  # what verifies is bounded in length, and nothing else is kept
        token = self._cache.get(key)
        if token is None:
            try:
                token = _verified(unverified_token, state)
            except TokenError as error:
                if error.code == "token-unknown-key":
                    self._trust.call_for_bundles()
                raise
            _check_user(token, state)
            self._cache.put(key, token)
        # 2. The dates, also of a token that was found good a minute ago. Narrower ones are checks in its blocks.
        if now < token.not_before:
            raise TokenError("token-not-yet-valid", f"the token begins {rfc3339(token.not_before)}")
        if now >= token.expires_at:
            raise TokenError(
                "token-expired", f"the token ended {rfc3339(token.expires_at)}", hint="mint a new one: certauth token mint"
            )
        # 3. Revocation of the root key, the user, every certificate it was in the hands of, the token, and every block.
        if revoked := state.token_revoked(token):
            raise RevokedError("token-revoked", f"the token was withdrawn: {revoked.reason}", hint="ask your facility")
        return token


def _verified(unverified_token: str, state: TrustState) -> VerifiedToken:
    try:
        return verify(unverified_token, state.token_keys, attesters=state.attesters)
    except TokenError as error:
        # Said by the bundle, and by the feed only to who reads one. The key is not believed either way; this tells why.
        if error.code == "token-unknown-key" and decode(from_text(unverified_token)).kid in state.tainted:
            raise RevokedError(
                "token-revoked",
                "the token was withdrawn: the key that signed it is not to be trusted any more",
                hint="mint a new one: certauth token mint",
            ) from error
        raise


def _check_user(token: VerifiedToken, state: TrustState) -> None:
    """A facility speaks only for those of its people for whom our entry lets it speak, by token as by certificate."""
    if not state.entries[token.domain].accepts(Principal.parse(token.user)):
        raise TokenError("token-user", f"{token.user} is not among the names accepted from {token.domain}")
