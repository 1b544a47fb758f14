"""The identity providers a facility believes, each by the exact text of its issuer URL.

The lookup is case-sensitive and repairs nothing (no trailing slash, no default port): a repaired name is another name, and
everything that follows - keys, audience, limits - belongs to exactly one entry (RFC 9207, OpenID Connect Core §3.1.3.7).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Literal
from urllib.parse import urlsplit

from certauth.errors import ConfigError, ProofError, RequestError
from certauth.identity.keyset import ALGORITHMS, normal_algorithm
from certauth.identity.kinds import BINDINGS_OF, Binding, ProofKind
from certauth.names import label

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

_LIMITS = {
    # what must hold: (least, greatest). Above them a setting is a typing error, or a hole.
    "skew": (timedelta(0), timedelta(minutes=5)),
    "max_age": (timedelta(seconds=1), timedelta(hours=24)),
    "max_lifetime": (timedelta(seconds=1), timedelta(days=8)),
}


_ENROLMENTS = ("enrolled", "open", "invite", "approve")
_ADDRESSES = ("required", "trusted")


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """One identity provider and what its proofs are good for.

    ``kinds`` are the kinds of proof that it may sign, ``bindings`` what may tie them to a key. ``audience`` is our client id
    there, ``access_token_audience`` what access tokens for us name as theirs. ``untyped_access_tokens`` accepts access tokens
    whose header does not say that they are some (RFC 9068 §2.1), as many providers make them.

    ``max_age`` counts from ``iat``, ``max_authentication_age`` from ``auth_time``, which is demanded when it is set.
    ``authorized_parties`` lists other clients of the provider whose tokens are accepted. ``single_key`` accepts tokens without
    ``kid``, and only while the provider publishes exactly one key. ``email_verified`` says whether an address counts only with
    ``email_verified: true`` beside it, or also without a word about it. ``allow_loopback_http`` is for trying things out.
    ``max_certificate_lifetime`` caps how long a login there lasts; ``assurance`` (0 to 3) says what it is worth.
    """

    id: str
    url: str
    audience: str
    kinds: frozenset[ProofKind] = frozenset({ProofKind.ID_TOKEN})
    bindings: frozenset[Binding] = frozenset({Binding.NONCE})
    access_token_audience: str | None = None
    untyped_access_tokens: bool = False
    algorithms: frozenset[str] = frozenset({"RS256", "ES256"})
    max_age: timedelta = timedelta(minutes=10)
    skew: timedelta = timedelta(seconds=60)
    max_lifetime: timedelta = timedelta(hours=24)
    max_authentication_age: timedelta | None = None
    authorized_parties: frozenset[str] = frozenset()
    single_key: bool = False
    assurance: int = 2
    email_verified: Literal["required", "trusted"] = "required"
    enrolment: Literal["enrolled", "open", "invite", "approve"] = "enrolled"
    max_certificate_lifetime: timedelta | None = None
    scopes: tuple[str, ...] = ("openid",)
    allow_loopback_http: bool = False

    def __post_init__(self) -> None:
        """Raise ``ConfigError`` (``issuer-invalid``) for an entry that could never be safe, or never accept anything."""
        try:
            label(self.id, "the id of an issuer")
        except RequestError as error:
            raise _invalid(self.id[:80], error.message) from error
        check_issuer_url(self.url, allow_loopback_http=self.allow_loopback_http)
        object.__setattr__(self, "algorithms", frozenset(normal_algorithm(name) for name in self.algorithms))
        if not self.algorithms or not self.algorithms <= ALGORITHMS:
            raise _invalid(self.id, f"its algorithms must be among {', '.join(sorted(ALGORITHMS))}")
        for name, (least, greatest) in _LIMITS.items():
            if not least <= getattr(self, name) <= greatest:
                raise _invalid(self.id, f"{name} must lie between {least} and {greatest}")
        if not 0 <= self.assurance <= 3:
            raise _invalid(self.id, "assurance must be 0, 1, 2 or 3")
        if self.email_verified not in _ADDRESSES or self.enrolment not in _ENROLMENTS:
            raise _invalid(self.id, f"email_verified is one of {_ADDRESSES}, enrolment one of {_ENROLMENTS}")
        self._check_kinds()
        self._check_audiences()
        if ProofKind.ID_TOKEN in self.kinds and "openid" not in self.scopes:
            raise _invalid(self.id, "its scopes must contain openid, or it sends no ID token")

    def _check_kinds(self) -> None:
        """Every kind can be bound, and unbound proofs are worth little and cannot be confused."""
        if not self.kinds or not self.kinds <= BINDINGS_OF.keys():
            raise _invalid(self.id, f"its kinds must be among {', '.join(BINDINGS_OF)}")
        if hopeless := sorted(kind for kind in self.kinds if not self.bindings & BINDINGS_OF[kind]):
            ways = ", ".join(sorted(BINDINGS_OF[hopeless[0]]))
            raise _invalid(self.id, f"its bindings allow no {hopeless[0]}; that needs one of {ways}")
        if Binding.NONE in self.bindings and self.assurance > 1:
            raise _invalid(self.id, "proofs that are bound to no key (bindings: none) are worth an assurance of 1 at most")
        if Binding.NONE in self.bindings and self.kinds >= {ProofKind.ID_TOKEN, ProofKind.WORKLOAD}:
            # Without a binding only the audience could tell a person's login from a job's token, and both have the same one.
            raise _invalid(self.id, "unbound proofs (bindings: none) are either of people or of workloads, not of both")

    def _check_audiences(self) -> None:
        needless = self.kinds == {ProofKind.WORKLOAD} and Binding.NONE not in self.bindings and Binding.CNF not in self.bindings
        if not self.audience and not needless:
            raise _invalid(self.id, "its audience, our client id there, is empty")
        if ProofKind.ACCESS_TOKEN in self.kinds and not self.access_token_audience:
            raise _invalid(self.id, "access tokens need an access_token_audience: the name under which they are for us")
        if self.untyped_access_tokens and self.access_token_audience == self.audience:
            raise _invalid(self.id, "untyped access tokens need an audience other than our client id, or ID tokens would pass")


def check_issuer_url(url: str, *, allow_loopback_http: bool) -> None:
    """Raise ``ConfigError`` (``issuer-invalid``) unless ``check_url`` passes and there is no query (Discovery §3)."""
    check_url(url, allow_loopback_http=allow_loopback_http)
    if "?" in url:
        raise _invalid(url[:120], "its URL must be a host and perhaps a path, nothing else")


def check_url(url: str, *, allow_loopback_http: bool) -> None:
    """Raise ``ConfigError`` (``issuer-invalid``) unless ``url`` is https (or allowed loopback http) in plain printable ASCII.

    No fragment, and no user name, which would be sent along with every request.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _invalid(url[:120], "its URL cannot be read") from error
    secure = parts.scheme == "https" or (parts.scheme == "http" and allow_loopback_http and parts.hostname in LOOPBACK)
    if not secure:
        raise _invalid(url[:120], "its URL must begin with https://")
    plain = url.isascii() and url.isprintable() and not any(character in url for character in " \\@#")
    if not parts.hostname or port == 0 or not plain:
        raise _invalid(url[:120], "its URL must be a host and perhaps a path, in plain characters")


def registry(issuers: Iterable[Issuer]) -> Mapping[str, Issuer]:
    """The issuers by URL; ``ConfigError`` (``issuer-duplicate``) if two share a URL or an id."""
    by_url: dict[str, Issuer] = {}
    ids: set[str] = set()
    for issuer in issuers:
        if issuer.url in by_url or issuer.id in ids:
            raise ConfigError(
                "issuer-duplicate",
                f"issuer {issuer.id!r} ({issuer.url}) is configured twice",
                hint="an id and a URL belong to one [[issuer]] entry, which may accept several kinds of proof",
            )
        by_url[issuer.url] = issuer
        ids.add(issuer.id)
    return MappingProxyType(by_url)


def issuer_of(unverified_issuer: str, issuers: Mapping[str, Issuer]) -> Issuer:
    """The configured issuer with exactly this URL; ``ProofError`` (``unknown-issuer``) if there is none."""
    issuer = issuers.get(unverified_issuer)
    if issuer is None:
        raise ProofError(
            "unknown-issuer",
            "the proof comes from an identity provider that this facility does not use",
            hint="log in at a provider that the facility lists; the text of its URL must be the same to the letter",
        )
    return issuer


def _invalid(issuer: str, reason: str) -> ConfigError:
    return ConfigError("issuer-invalid", f"issuer {issuer!r}: {reason}", hint="correct its [[issuer]] entry in signer.toml")
