"""Scopes with a resource path, as WLCG and SciTokens write them: ``storage.read:/cms/store``, ``compute.create``.

Semantics of the WLCG Common JWT Profiles §2.2.1: ``/a`` is exactly that and everything below (``/a/b``, not ``/ab``), ``/a/``
is what lies below only, and a ``storage.*`` scope without a path makes the token unacceptable. A path that has more than one
reading (``..``, ``//``, percent-encoding) is refused where other implementations normalise it: never more than they allow.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from certauth.identity.mapping.claims import ClaimUnreadable, Pointer

MAX_PATH: Final = 512
_MISLEADING = frozenset("%?#*\\")
_STORAGE = "storage."
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True)
class Scope:
    """One scope: what is allowed, and where (``None`` without a path)."""

    name: str
    path: str | None


def is_scope_name(text: str) -> bool:
    """Whether ``text`` can be a scope before its colon."""
    return bool(_NAME.fullmatch(text))


def read_scopes(texts: Iterable[str], names: frozenset[str], claim: Pointer) -> Iterator[Scope]:
    """The scopes called one of ``names``, in a claim that is one text with spaces (RFC 8693 §4.2) or a list of texts.

    Raises ``ClaimUnreadable`` if one of them has a path that is not canonical, or should have one and has not.
    """
    for scope in (scope for text in texts for scope in text.split(" ")):
        name, colon, path = scope.partition(":")
        if name not in names:
            continue
        if not colon and name.startswith(_STORAGE):
            raise ClaimUnreadable(f"{claim} holds {name} without a path", "such a token must be rejected: ask for another one")
        if colon and not is_canonical_path(path):
            raise ClaimUnreadable(
                f"{claim} holds {name} with a path that is not canonical",
                "ask for scopes with absolute, decoded paths without empty or dot segments",
            )
        yield Scope(name, path if colon else None)


def paths_below(base: str, path: str | None) -> tuple[str, ...]:
    """What a scope's path is as paths of rights, below ``base`` (canonical, ends in a slash): exact, subtree, or both."""
    if path is None:
        return (base,)
    joined = base + path[1:]
    return (joined,) if joined.endswith("/") else (joined, joined + "/")


def is_canonical_path(path: str) -> bool:
    """Whether ``path`` is one that ``certauth.requests.canonical_path`` takes: it can be a right's."""
    segments = path.split("/")
    inner = segments[1:-1] if path.endswith("/") else segments[1:]
    return (
        path.startswith("/")
        and len(path) <= MAX_PATH
        and path.isprintable()
        and _MISLEADING.isdisjoint(path)
        and not any(segment in {"", ".", ".."} for segment in inner)
    )
