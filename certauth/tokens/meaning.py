"""What a condition means: whether a request meets it, and how people say it.

The engine's decision is the one that counts. ``holds`` repeats it in Python to tell which condition it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple, assert_never

from certauth.clock import from_timestamp, rfc3339
from certauth.keys import key_id
from certauth.tokens.conditions import (
    BodyDigest,
    Condition,
    Members,
    Networks,
    Operations,
    Paths,
    Peer,
    Projects,
    Services,
    Uses,
    Voucher,
    Window,
)
from certauth.tokens.datalog import KeyRef
from certauth.tokens.signing import public_key

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request, as an enforcement point sees it. ``path`` is canonical; ``now`` is aware."""

    now: datetime
    service: str
    operation: str
    path: str
    peer_fingerprint: str
    client_address: Address | None = None
    project: str | None = None
    uses: Mapping[str, int] | None = None
    """For each counter, by its nonce, how often it was used before; ``None`` where nothing is counted."""
    body_sha256: str | None = None
    """Digest of the body, in hex; ``None`` where there is none, or nobody reads it before it is acted upon."""


class HandOver(NamedTuple):
    """A key handed the token over, when it could be handed over ``depth`` times, to a certificate."""

    key: KeyRef
    depth: int
    to: str


class Stated(NamedTuple):
    """What third parties state in a token."""

    hand_overs: tuple[HandOver, ...] = ()
    vouchers: tuple[Voucher, ...] = ()


def holds(condition: Condition, request: Request, stated: Stated = Stated()) -> bool:  # noqa: B008 - immutable
    """Whether ``condition`` is met by ``request``, in a token in which third parties stated ``stated``."""
    match condition:
        case Window(not_before, before):
            now = int(request.now.timestamp())
            return (not_before is None or now >= not_before) and now < before
        case Services(names):
            return request.service in names
        case Operations(names):
            return request.operation in names
        case Projects(names):
            return request.project in names
        case Peer(fingerprint, key, depth):
            peer = request.peer_fingerprint
            return peer == fingerprint or any(
                (by, left) == (key, depth) and peer == (to if depth == 1 else stated.hand_overs[-1].to)
                for by, left, to in stated.hand_overs
            )
        case Paths(names):
            return any(is_within(request.path, name) for name in names)
        case Networks(networks):
            return plain_address(request.client_address) is not None and any(
                plain_address(request.client_address) in network for network in networks
            )
        case Uses(nonce, limit):
            return request.uses is not None and request.uses.get(nonce, limit) < limit
        case BodyDigest(sha256):
            return request.body_sha256 == sha256
        case Members(vouchers):
            return not set(vouchers).isdisjoint(stated.vouchers)
        case _:
            assert_never(condition)


def is_within(path: str, granted: str) -> bool:
    """Whether ``granted`` covers ``path``: exactly, or everything below it if it ends in ``/``."""
    return path == granted or (granted.endswith("/") and path.startswith(granted))


def plain_address(address: Address | None) -> Address | None:
    """``address``, with an IPv4 address that came as IPv6 (``::ffff:a.b.c.d``) as the IPv4 address it is."""
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def words(condition: Condition) -> str:
    """``condition`` as people say it."""
    match condition:
        case Window(not_before, before):
            start = "" if not_before is None else f"from {rfc3339(from_timestamp(not_before))} "
            return f"{start}until {rfc3339(from_timestamp(before))}"
        case Services(names):
            return f"only at {_either(names)}"
        case Operations(names):
            return f"only to {_either(names)}"
        case Projects(names):
            return f"only for project {_either(names)}"
        case Peer(fingerprint, key, depth):
            others = "" if key is None else " or one that its key names"
            further = f", handed over up to {depth} times" if key is not None and depth > 1 else ""
            return f"only in the hands of certificate {fingerprint[:16]}…{others}{further}"
        case Paths(names):
            return "only " + _either(tuple(f"below {name}" if name.endswith("/") else name for name in names))
        case Networks(networks):
            return f"only from {_either(tuple(str(network) for network in networks))}"
        case Uses(nonce, limit):
            return f"only {limit} times (counter {nonce[:8]}…)" if limit != 1 else f"only once (counter {nonce[:8]}…)"
        case BodyDigest(sha256):
            return f"only with a body whose SHA-256 is {sha256[:16]}…"
        case Members(vouchers):
            return "only with " + _either(tuple(f"{group}, vouched for by key {key_name(key)}" for group, key in vouchers))
        case _:
            assert_never(condition)


def key_name(key: KeyRef) -> str:
    """The id of a key as it is shown elsewhere; of bytes that are no key, that they are none."""
    try:
        return key_id(public_key(key))
    except ValueError:
        return "that is none"


def _either(names: tuple[str, ...]) -> str:
    return " or ".join(names)
