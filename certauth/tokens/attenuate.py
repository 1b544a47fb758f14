"""Attenuation: a narrower token from a token, offline and without the issuer's key.

    narrower = attenuate(token, read="/data/run7/", expires_in=timedelta(hours=1))

Text in, text out; bytes in, bytes out. Nothing is verified, and nothing can be widened: whoever evaluates the token asks for
everything it demanded before *and* for what was added.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import product
from typing import TYPE_CHECKING, TypedDict, TypeVar, Unpack

from cryptography.hazmat.primitives.hashes import SHA256

from certauth.clock import Clock, system_clock
from certauth.errors import UsageError
from certauth.tokens.blocks import Block
from certauth.tokens.codec import decode, encode, from_text, to_text
from certauth.tokens.lint import lint
from certauth.tokens.signing import Entropy, append
from certauth.tokens.vocabulary import MemberOf, Narrowing, datalog_version, is_text

if TYPE_CHECKING:
    from cryptography import x509

Form = TypeVar("Form", str, bytes)
"""A token as text, or as bytes."""
Value = TypeVar("Value")
Names = str | Iterable[str]
"""One name, or several of which any will do."""


class Wishes(TypedDict, total=False):
    """How a token shall be narrowed, in the words of ``narrowed_to``."""

    read: Names | None
    write: Names | None
    rights: Iterable[tuple[str, str]] | None
    service: Names | None
    expires_in: timedelta | None
    expires_at: datetime | None
    networks: Names | None
    project: Names | None
    peer: str | x509.Certificate | None
    max_uses: int | None
    body_sha256: str | None
    members: Iterable[MemberOf] | None


def attenuate(
    token: Form,
    narrowing: Narrowing | None = None,
    *,
    entropy: Entropy = os.urandom,
    clock: Clock = system_clock,
    **wishes: Unpack[Wishes],
) -> Form:
    """``token`` with one more block that demands ``narrowing``, or the ``wishes``; what it demanded before it still demands.

    The wishes are those of ``narrowed_to``. Raises ``UsageError`` (``bad-narrowing``, ``not-expressible``) if nothing would be
    narrowed or the wishes cannot be said, ``TokenError`` if the token cannot take a block (``too-many-blocks``,
    ``token-too-large``, ``token-sealed``) or is none of ours.
    """
    if narrowing is not None and wishes:
        raise UsageError("bad-narrowing", "give a narrowing or wishes, not both", hint="put everything into one of them")
    checks = (narrowing or narrowed_to(clock=clock, **wishes)).conditions(entropy=entropy)
    if not checks:
        raise UsageError("bad-narrowing", "nothing to narrow was given", hint="give an operation, a path or an earlier end")
    if isinstance(token, str):
        return to_text(_append(from_text(token), Block(datalog_version(checks), checks=checks), entropy))
    return _append(token, Block(datalog_version(checks), checks=checks), entropy)


def _append(token: bytes, block: Block, entropy: Entropy) -> bytes:
    parent = decode(token)
    lint(parent)
    data = encode(append(parent, block, entropy=entropy))
    lint(decode(data))
    return data


def narrowed_to(
    *,
    read: Names | None = None,
    write: Names | None = None,
    rights: Iterable[tuple[str, str]] | None = None,
    service: Names | None = None,
    expires_in: timedelta | None = None,
    expires_at: datetime | None = None,
    networks: Names | None = None,
    project: Names | None = None,
    peer: str | x509.Certificate | None = None,
    max_uses: int | None = None,
    body_sha256: str | None = None,
    members: Iterable[MemberOf] | None = None,
    clock: Clock = system_clock,
) -> Narrowing:
    """The narrowing that these wishes mean.

    ``read`` and ``write`` are paths, which end in ``/`` for everything below; ``rights`` are further pairs of an operation and
    a path. ``expires_in`` counts from ``clock()``. ``networks`` are CIDR text. ``peer`` is a certificate or its SHA-256 in hex:
    it excludes all others and hands nothing over. ``body_sha256`` is in hex. ``members`` are groups, one of which
    must have been vouched for, in the token, with its key. ``max_uses`` are counted by the doors that share a counter.

    Raises ``UsageError``: ``bad-narrowing`` naming what cannot be, and ``not-expressible`` for rights that are not operations
    times paths. A narrowing says "these operations" and "these paths"; reading one path and writing another would need more
    than that, and to allow either on both would be wider than what was asked.
    """
    wanted = [("read", path) for path in _names(read) or ()] + [("write", path) for path in _names(write) or ()]
    wanted += _pairs(rights)
    operations = tuple(dict.fromkeys(operation for operation, _ in wanted))
    paths = tuple(dict.fromkeys(path for _, path in wanted))
    if set(product(operations, paths)) != set(wanted):
        raise UsageError(
            "not-expressible",
            "a token cannot be narrowed to different operations on different paths",
            hint="mint a token with exactly these rights, or make one narrowed token for each path",
        )
    if expires_in is not None:
        if expires_at is not None:
            raise UsageError("bad-narrowing", "an end can be given as a duration or as a moment, not both", hint="give one")
        expires_at = clock() + expires_in
    return Narrowing(
        operations=operations or None,
        paths=paths or None,
        expires_at=expires_at,
        services=_names(service),
        networks=_names(networks),
        projects=_names(project),
        peer_fingerprint=peer if isinstance(peer, str | None) else peer.fingerprint(SHA256()).hex(),
        max_uses=max_uses,
        body_sha256=body_sha256,
        members=_given(members),
    )


def _names(given: Names | None) -> tuple[str, ...] | None:
    return (given,) if isinstance(given, str) else _given(given)


def _pairs(rights: Iterable[tuple[str, str]] | None) -> tuple[tuple[str, str], ...]:
    """The pairs; a text is none, though it can be two letters."""
    found = _given(rights) or ()
    if any(is_text(pair) or len(pair) != 2 for pair in found):
        raise UsageError(
            "bad-narrowing", "rights are pairs of an operation and a path", hint='a list: rights=[("read", "/data/")]'
        )
    return found


def _given(values: Iterable[Value] | None) -> tuple[Value, ...] | None:
    """The values, if any were given. Whoever computed an empty list means that nothing is allowed; it would limit nothing."""
    if values is None:
        return None
    found = tuple(values)
    if not found:
        raise UsageError("bad-narrowing", "a list of what is still allowed is empty", hint="leave it out to limit nothing")
    return found
