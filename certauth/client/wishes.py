"""What was wished for when a token was minted, so that the next one can be asked for in the same words.

A token says what was granted, which may be less: a lifetime that the end of its certificate cut would shrink from one token to
the next. So the first renewal of a token writes down what that one says, and later ones go by that, as long as the stored
token is the one that was minted then.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from certauth.client.profile import Profile
from certauth.encoding import Json, canonical_json, strict_json
from certauth.errors import CertauthError
from certauth.files import PRIVATE, read_private, write_atomic
from certauth.profiles import MIN_LIFETIME
from certauth.requests import Right
from certauth.tokens import describe

_FILE = "renewal.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenWish:
    """How to ask for a token like the one stored under ``name``, whose id is ``jti``. ``lifetime`` in seconds."""

    name: str
    jti: str
    audience: str
    rights: tuple[Right, ...]
    lifetime: int
    delegations: int
    starts: datetime
    ends: datetime

    def minted(self, jti: str) -> TokenWish:
        """The same wish, which led to the token ``jti``."""
        return replace(self, jti=jti)


def read_wishes(profile: Profile, holder: str, *, now: datetime) -> list[TokenWish]:
    """For every stored token that was minted for the certificate ``holder``, and is in no other hands and not narrowed."""
    known = _remembered(profile)
    found = (_wish(name, profile.token(name) or "", holder, known, now) for name in profile.token_names())
    return [wish for wish in found if wish is not None]


def keep_wishes(profile: Profile, wishes: Iterable[TokenWish]) -> None:
    """Write them down, in place of what was written before."""
    members: dict[str, Json] = {
        wish.jti: {
            "rights": [[right.operation, right.path] for right in wish.rights],
            "lifetime": wish.lifetime,
            "delegations": wish.delegations,
        }
        for wish in wishes
    }
    with profile.locked():
        write_atomic(profile.directory / _FILE, canonical_json(members), mode=PRIVATE)


def _remembered(profile: Profile) -> dict[str, Json]:
    """By token id; empty if there is nothing usable: then the tokens speak for themselves."""
    try:
        members = strict_json(read_private(profile.directory / _FILE))
    except (CertauthError, ValueError):
        return {}
    return members if isinstance(members, dict) else {}


def _wish(name: str, text: str, holder: str, known: dict[str, Json], now: datetime) -> TokenWish | None:
    try:
        facts = describe(text, now=now)
    except CertauthError:
        return None  # damaged, and the list of tokens shows it
    if facts["peer_fingerprint"] != holder or facts["delegated_to"] or facts["narrowings"]:
        return None
    starts, ends = (datetime.fromisoformat(str(facts[member])) for member in ("issued_at", "expires_at"))
    match facts:
        case {"audience": [str(audience)], "rights": [*rights], "jti": str(jti), "delegation_depth": int(depth)}:
            pass
        case _:
            return None
    wish = TokenWish(
        name=name,
        jti=jti,
        audience=audience,
        rights=tuple(Right(str(one["operation"]), str(one["path"])) for one in rights if isinstance(one, dict)),
        lifetime=int(max(ends - starts, MIN_LIFETIME).total_seconds()),  # cut to less, it could not be asked for
        delegations=depth,
        starts=starts,
        ends=ends,
    )
    match known.get(jti):
        case {"rights": [*pairs], "lifetime": int(lifetime), "delegations": int(delegations)}:
            before = tuple(Right(str(pair[0]), str(pair[1])) for pair in pairs if isinstance(pair, list) and len(pair) == 2)
            return replace(wish, rights=before, lifetime=max(lifetime, wish.lifetime), delegations=delegations)
        case _:
            return wish
