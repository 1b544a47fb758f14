"""Tokens from the user's side, over mutual TLS: mint one, revoke one.

What a signer answers is verified before it is believed: a token's signature under the facility's keys, that it names this user,
and, by the receipt, that the facility's log holds this very token for this very certificate, or this very revocation.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from certauth.audit import receipt as receipts
from certauth.audit.checkpoint import VerifierKey
from certauth.audit.receipt import Receipt
from certauth.bundles import TrustBundle
from certauth.client.http import Client, text_member
from certauth.client.login import granted, signer_trust
from certauth.client.profile import Credential, Profile
from certauth.client.stored import forget, trusted_keys
from certauth.clock import Clock
from certauth.errors import AnswerError, CertauthError
from certauth.names import label
from certauth.requests import Right
from certauth.tokens import VerifiedToken, block_ids, describe, from_text, verify

_TOKEN_LIMIT = 16_384
_REVOCATIONS = "/v1/revocations"
_TELL = "nothing was stored; tell those who run the signer"
_UNSURE = "whether it was done is not proved; tell those who run the signer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Minted:
    """A stored token: under which name and path, what it is, and how a wish was cut."""

    name: str
    path: Path
    token: VerifiedToken
    clamped: Mapping[str, object] | None


def mint(
    profile: Profile,
    *,
    audience: str,
    rights: tuple[Right, ...] | None,
    lifetime: timedelta | None,
    delegations: int,
    name: str,
    ca: bytes | None,
    clock: Clock,
) -> Minted:
    """Ask the profile's signer for a token, check the answer, and store it under ``name``.

    ``rights`` is ``None`` for everything the user may do at ``audience``; ``delegations`` is how many times it may be handed
    on, one holder to the next. Raises ``LoginRequired`` without a valid certificate, ``Refused``, ``UnavailableError``, and the
    errors of ``check_answer``.
    """
    # A token that cannot be stored must not be made.
    label(name, "the name of a token")
    wish: dict[str, object] = {"audience": label(audience, "a service"), "delegations": delegations}
    if rights is not None:
        wish["rights"] = [{"operation": right.operation, "path": right.path} for right in rights]
    if lifetime is not None:
        wish["lifetime"] = int(lifetime.total_seconds())
    signer = profile.signer()
    answer, credential = _post(profile, signer.tokens, wish, ca=ca, clock=clock)
    text, token, receipt = check_answer(
        answer, credential=credential, bundle=profile.bundle(), audience=audience, url=signer.url
    )
    path = profile.store_token(name, text, jti=token.jti, receipt=receipt)
    clamped = answer.get("clamped")
    return Minted(name=name, path=path, token=token, clamped=clamped if isinstance(clamped, dict) else None)


def check_answer(
    answer: Mapping[str, object], *, credential: Credential, bundle: TrustBundle, audience: str, url: str
) -> tuple[str, VerifiedToken, Receipt]:
    """Establish that the answer to a token request is what was asked for.

    1. the token verifies under the facility's keys (``TokenError``);
    2. it is this user's, for this service, and bound to this certificate (``AnswerError`` ``wrong-token``);
    3. the receipt holds under the facility's log key (``LogError``), and records the hash of this very token
       (``wrong-receipt``).
    """
    text = text_member(answer, "token", url, limit=_TOKEN_LIMIT)
    # 1
    token = verify(text, trusted_keys(bundle))
    # 2
    if (token.user, token.peer_fingerprint) != (str(credential.principal), credential.fingerprint):
        raise AnswerError("wrong-token", f"{url} answered with a token for somebody else", hint=_TELL)
    if token.audience != (audience,):
        raise AnswerError("wrong-token", f"{url} answered with a token for another service", hint=_TELL)
    # 3
    receipt = Receipt.from_dict(answer.get("receipt"))
    if granted(receipt, bundle, url=url).get("token") != token.digest:
        raise AnswerError("wrong-receipt", f"{url} answered with the receipt of another token", hint=_TELL)
    return text, token, receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """What shall be revoked: a ``jti``, or a ``block`` together with the sub-token that shows the caller's right to."""

    kind: str
    value: str
    token: str | None = field(default=None, repr=False)

    @classmethod
    def whole(cls, jti: str) -> Revocation:
        """The token that was minted with this id, and with it everything derived from it."""
        return cls(kind="jti", value=jti)

    @classmethod
    def only_this(cls, text: str) -> Revocation:
        """The newest block of this token: it, and what is derived from it, but not what it was derived from."""
        return cls(kind="block", value=block_ids(from_text(text))[-1], token=text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoked:
    """A revocation that is in the facility's log, and the stored tokens that died with it and were deleted."""

    receipt: Receipt
    forgotten: tuple[str, ...]


def revoke(profile: Profile, what: Revocation, *, reason: str, ca: bytes | None, clock: Clock) -> Revoked:
    """Revoke it at the profile's signer, check the receipt, and delete the stored tokens that it kills.

    Raises ``Refused`` (``not-yours``) for somebody else's token, ``LoginRequired``, ``UnavailableError``, and if the answer
    does not prove that this was recorded, ``LogError`` or ``AnswerError`` (``wrong-receipt``): then nothing is deleted.
    """
    url = profile.signer().url
    wish = {"kind": what.kind, "value": what.value, "reason": reason} | ({} if what.token is None else {"token": what.token})
    answer, _ = _post(profile, url + _REVOCATIONS, wish, ca=ca, clock=clock)
    receipt = Receipt.from_dict(answer.get("receipt"))
    recorded = receipts.check(receipt, VerifierKey.parse(profile.bundle().log_vkey)).record.get("revoke")
    if not isinstance(recorded, dict) or (recorded.get("kind"), recorded.get("value")) != (what.kind, what.value):
        raise AnswerError("wrong-receipt", f"{url} answered with the receipt of something else", hint=_UNSURE)
    dead = tuple(name for name in profile.token_names() if _dies(profile.token(name) or "", what, clock))
    forget(profile, dead)
    return Revoked(receipt=receipt, forgotten=dead)


def _dies(text: str, what: Revocation, clock: Clock) -> bool:
    try:
        return what.value in (block_ids(from_text(text)) if what.kind == "block" else (describe(text, now=clock())["jti"],))
    except CertauthError:
        return False  # damaged: the list shows it


def _post(
    profile: Profile, url: str, wish: Mapping[str, object], *, ca: bytes | None, clock: Clock
) -> tuple[dict[str, object], Credential]:
    context = signer_trust(profile, ca=ca)
    credential = profile.present(context, now=clock())
    with Client(context) as client:
        return client.post_again(url, lambda: {**wish, "request_id": uuid.uuid4().hex}), credential
