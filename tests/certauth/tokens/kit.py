"""A facility, its keys and a token of it, for the tests of ``certauth.tokens``."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from certauth.keys import Algorithm, SoftwareKey, generate, key_id
from certauth.names import TrustDomain
from certauth.tokens.authorizer import Allowed, NotAllowed, evaluate
from certauth.tokens.blocks import Block
from certauth.tokens.codec import Token, decode, encode, to_text
from certauth.tokens.datalog import Predicate, Tables
from certauth.tokens.mint import mint
from certauth.tokens.signing import append, mint_chain
from certauth.tokens.verify import TrustedTokenKey, VerifiedToken, verify
from certauth.tokens.vocabulary import Right, TokenSpec

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
ALICE, BOB, EVE = (hashlib.sha256(name).hexdigest() for name in (b"alice", b"bob", b"eve"))
"""Certificate fingerprints."""
DOMAIN = TrustDomain("als.example")


@dataclass(frozen=True)
class Facility:
    """A trust domain that mints tokens."""

    domain: TrustDomain = DOMAIN
    root: SoftwareKey = field(default_factory=lambda: generate(Algorithm.ED25519))
    holder: SoftwareKey = field(default_factory=lambda: generate(Algorithm.P256))

    @property
    def issuer(self) -> str:
        return f"spiffe://{self.domain}"

    @property
    def kid(self) -> str:
        return key_id(self.root.public_key)

    @property
    def roots(self) -> dict[str, TrustedTokenKey]:
        """What a door that trusts this facility is configured with."""
        return {self.kid: TrustedTokenKey(kid=self.kid, key=self.root.public_key, issuer=self.issuer, domain=self.domain)}

    def spec(self, **changes: Any) -> TokenSpec:
        """What Alice's token says, with ``changes``."""
        usual: dict[str, Any] = {
            "issuer": self.issuer,
            "jti": "0123456789abcdef0123456789abcdef",
            "user": f"{self.issuer}/user/alice",
            "issued_at": NOW,
            "not_before": NOW - timedelta(seconds=60),
            "expires_at": NOW + timedelta(hours=1),
            "audience": ("files",),
            "rights": (Right("files", "read", "/data/"), Right("files", "write", "/data/alice/log")),
            "groups": ("beamline-7",),
            "roles": ("operator",),
            "projects": ("p-17",),
            "assurance": 2,
            "peer_fingerprint": ALICE,
            "delegate_key": self.holder.public_key,
        }
        return TokenSpec(**{**usual, **changes})

    def mint(self, **changes: Any) -> bytes:
        return mint(self.spec(**changes), self.root)

    def sign(self, block: Block) -> bytes:
        """Any authority block, properly signed: what a rogue or broken issuer could send."""
        return encode(mint_chain(block, self.root, entropy=entropy))

    def verify(self, token: bytes) -> VerifiedToken:
        return verify(to_text(token), self.roots)

    def ask(self, token: bytes, **changes: Any) -> Allowed | NotAllowed:
        """The decision about a read of ``/data/run7/a`` by Alice, with ``changes``."""
        return ask(self.verify(token), **changes)


def ask(verified: VerifiedToken, **changes: Any) -> Allowed | NotAllowed:
    """The decision about a read of ``/data/run7/a`` by Alice, with ``changes``."""
    usual: dict[str, Any] = {
        "now": NOW,
        "service": "files",
        "operation": "read",
        "path": "/data/run7/a",
        "peer_fingerprint": ALICE,
        "client_address": "10.1.2.3",
    }
    return evaluate(verified, **{**usual, **changes})


def codes(decision: Allowed | NotAllowed) -> list[str]:
    """The codes of what failed; empty if allowed."""
    return [] if isinstance(decision, Allowed) else [failed.code for failed in decision.failed]


def with_block(token: bytes, block: Block) -> bytes:
    """``token`` with any block that its holder can sign, which is any block at all."""
    return encode(append(decode(token), block, entropy=entropy))


def with_content(token: Token, content: Block) -> Token:
    """``append`` for a decoded token."""
    return append(token, content, entropy=entropy)


_COUNTER = [0]


def entropy(size: int) -> bytes:
    """Distinct bytes that are the same in every run."""
    _COUNTER[0] += 1
    return hashlib.sha512(_COUNTER[0].to_bytes(8, "big")).digest()[:size]


def fact(name: str, *terms: Any) -> Predicate:
    """A fact, or one predicate of a query."""
    return Predicate(name, terms)


def tables() -> Tables:
    """Empty tables."""
    return Tables()
