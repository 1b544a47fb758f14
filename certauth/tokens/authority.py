"""The authority block, read: every fact and condition that an issuer must state, once, in its form, and nothing else.

No signature is looked at. What is wrong is a ``TokenError`` whose code begins with ``lint-``, as in
:mod:`~certauth.tokens.lint`, of which this is the part about the first block.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from typing import Any, NamedTuple

from certauth.errors import CertauthError, TokenError
from certauth.names import Principal
from certauth.tokens.blocks import Block
from certauth.tokens.conditions import Peer, Services, Window
from certauth.tokens.vocabulary import AMBIENT, MAX_DATE, MAX_DEPTH, PLURAL, PROFILE, SINGLE, Right, is_jti


class Authority(NamedTuple):
    """What an authority block states, checked for form. Times are POSIX seconds."""

    issuer: str
    jti: str
    user: Principal
    issued_at: int
    not_before: int
    expires_at: int
    assurance: int
    groups: tuple[str, ...]
    roles: tuple[str, ...]
    projects: tuple[str, ...]
    rights: tuple[Right, ...]
    audience: tuple[str, ...]
    peer: Peer


def read_authority(block: Block) -> Authority:
    """What an authority block states.

    Raises ``TokenError``: ``lint-ambient``, ``lint-fact``, ``lint-authority``.
    """
    single: dict[str, Any] = {}
    plural: dict[str, list[tuple[Any, ...]]] = {"group": [], "role": [], "project": [], "right": []}
    twice = False
    for name, terms in block.facts:
        if (form := SINGLE.get(name)) is not None and len(terms) == 1 and type(terms[0]) is form[0]:
            twice |= name in single
            single[name] = terms[0]
        elif (form := PLURAL.get(name)) is not None and tuple([type(term) for term in terms]) == form:
            plural[name].append(terms)
        elif name in AMBIENT:
            raise _refused("lint-ambient", f"states {name}, which only an enforcement point may")
        else:
            raise _refused("lint-fact", "states something that the profile does not know, or not in this form")
    if twice or len(single) != len(SINGLE):
        raise _refused("lint-fact", "lacks a fact that every token has once, or has it twice")
    version, issuer, jti, user, iat, exp, assurance = [single[name] for name in SINGLE]
    if version != PROFILE:
        raise _refused("lint-authority", "is of another version of the profile")
    not_before, end, services, peer = _conditions(block)
    if not not_before <= iat.seconds < exp.seconds == end <= MAX_DATE or not 0 <= assurance <= 3:
        raise _refused("lint-authority", "contradicts itself")
    if not is_jti(jti):
        raise _refused("lint-authority", "has an id by which it could not be withdrawn")
    return Authority(
        issuer,
        jti,
        _principal(user),
        iat.seconds,
        not_before,
        exp.seconds,
        assurance,
        tuple([name for (name,) in plural["group"]]),
        tuple([name for (name,) in plural["role"]]),
        tuple([name for (name,) in plural["project"]]),
        tuple([Right(*right) for right in plural["right"]]),
        services.names,
        peer,
    )


def fact_counts(block: Block) -> dict[str, int]:
    """How many facts by each name a check can meet, of an authority block that was read; of all others there is one at most."""
    counts = Counter(name for name, _ in block.facts)
    # The enforcement point states at most one for each right.
    return dict(counts) | {"tree": counts["right"] or 1}


@lru_cache(maxsize=1024)  # people come back with new tokens
def _principal(text: str) -> Principal:
    try:
        return Principal.parse(text)
    except CertauthError as error:
        raise _refused("lint-authority", "states a user that is no principal") from error


def _conditions(block: Block) -> tuple[int, int, Services, Peer]:
    """The three conditions every authority block carries, once each, in this order, and no other check."""
    match block.checks:
        case (Window(int(not_before), end), Services() as services, Peer() as peer) if peer.depth <= MAX_DEPTH:
            return not_before, end, services, peer
        case _:
            raise _refused("lint-authority", "is not bound to a time, an audience and a certificate, in this order")


def _refused(code: str, what: str) -> TokenError:
    return TokenError(
        code, f"the token is refused unread: its authority block {what}", hint="mint a new one; if it stays, tell its facility"
    )
