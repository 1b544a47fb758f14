"""The tokens a profile keeps: listed, made ready for use, forgotten. Offline.

Only ``entries`` verifies signatures: what is stored was verified when it was minted, and a door verifies it anyway.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from certauth.bundles import TrustBundle
from certauth.client.profile import Profile
from certauth.clock import in_words, rfc3339
from certauth.errors import CertauthError, LoginRequired, UsageError
from certauth.names import label
from certauth.tokens import TrustedTokenKey, VerifiedToken, describe, verify

_LIST = "'certauth token list' shows the stored ones"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A stored token as a list shows it: ``state`` is ``valid``, ``expired``, or the code of what is wrong with it."""

    name: str
    state: str
    audience: str | None = None
    usable_until: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usable:
    """A token that works for a while yet, in the hands of the certificate ``holder``."""

    text: str = field(repr=False)
    expires_at: datetime
    holder: str


def trusted_keys(bundle: TrustBundle) -> dict[str, TrustedTokenKey]:
    """The keys that sign a facility's tokens, by key id, as the verifier wants them."""
    issuer = f"spiffe://{bundle.domain}"
    return {
        root.kid: TrustedTokenKey(kid=root.kid, key=root.key, issuer=issuer, domain=bundle.domain)
        for root in bundle.believed_token_roots
    }


def verified(text: str, bundle: TrustBundle) -> VerifiedToken:
    """``text``, every signature of it verified under the facility's keys, as its holder can: raises as ``verify`` does.

    Which keys may vouch for which groups is decided by services; here nobody's word counts, so ``members`` is empty.
    """
    return verify(text, trusted_keys(bundle), attesters=None)


def entries(profile: Profile, *, now: datetime) -> list[Entry]:
    """Every stored token, verified under the profile's bundle."""
    return [_entry(profile, name, now) for name in profile.token_names()]


def _entry(profile: Profile, name: str, now: datetime) -> Entry:
    try:
        text = profile.token(name) or ""
        token = verified(text, profile.bundle())
        until = str(describe(text, now=now)["usable_until"])
    except CertauthError as error:
        return Entry(name=name, state=error.code)
    state = "valid" if rfc3339(now) < until else "expired"
    return Entry(name=name, state=state, audience=", ".join(token.audience), usable_until=until)


def forget(profile: Profile, names: Iterable[str]) -> None:
    """Delete the tokens stored under ``names``: all, or none if one of them is not there (``UsageError`` ``token-unknown``)."""
    paths = [profile.token_path(name) for name in names]
    with profile.locked():
        for path in paths:
            if not path.is_file():
                raise UsageError("token-unknown", f"no token is stored as {path.name!r}", hint=_LIST)
        for path in paths:
            path.unlink(missing_ok=True)


def usable(text: str, *, profile: Profile | None, name: str | None, min_remaining: timedelta, now: datetime) -> Usable:
    """``text``, if it works for at least ``min_remaining`` yet.

    Otherwise ``LoginRequired`` (``token-ending``, or the codes of ``Profile.credential``), whose hint is the command that gets
    a new one; ``name`` is what the token is stored under. Raises ``TokenError`` for what is no token.
    """
    facts = describe(text, now=now)
    end = datetime.fromisoformat(str(facts["usable_until"]))
    left = end - now
    if left < min_remaining or left <= timedelta(0):
        state = f"ended {in_words(left)}" if left <= timedelta(0) else f"works for {in_words(left)} only"
        raise LoginRequired("token-ending", f"the token {state}", hint=_renewal(facts, profile, name, now))
    delegated_to = facts["delegated_to"]
    handed = [str(one) for one in delegated_to] if isinstance(delegated_to, list) else []
    return Usable(text=text, expires_at=end, holder=handed[-1] if handed else str(facts["peer_fingerprint"]))


def _renewal(facts: Mapping[str, object], profile: Profile | None, name: str | None, now: datetime) -> str:
    """The command that gets a token like the one of ``facts``."""
    try:
        own = None if profile is None else profile.credential(now=now)
    except LoginRequired as error:
        return error.hint or ""  # without a certificate there is nothing to mint with
    if own is None or str(own.principal) != facts["user"]:
        return "ask whoever gave it to you for a new one"
    mint = mint_command(facts, name=name)
    if isinstance(facts["narrowings"], list) and facts["narrowings"]:
        return f"{mint_command(facts, name=None)}; then derive from it as you did before"
    return mint


def mint_command(facts: Mapping[str, object], *, name: str | None) -> str:
    """The command that mints a token with the audience and rights of ``facts`` (of ``describe``), stored under ``name``."""
    audience = facts["audience"]
    service = str(audience[0]) if isinstance(audience, list) else ""
    words = ["certauth", "token", "mint", service]
    rights = facts["rights"]
    for right in rights if isinstance(rights, list) else ():
        if isinstance(right, dict):
            operation, path = str(right["operation"]), str(right["path"])
            words += [f"--{operation}", path] if operation in {"read", "write"} else ["--right", f"{operation}:{path}"]
    if name is not None and name != service:
        words += ["--name", label(name, "the name of a token")]
    return shlex.join(words)
