"""``[[attester]]`` of ``trust.toml``: a key of another facility, and for which of its groups it may vouch in tokens.

What such a key states is never taken for what a token's issuer states: its groups are called ``<domain>:<group>`` here and in
``policy.toml``, and no other predicate of it is believed (``certauth.tokens.lint``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Annotated

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_public_key
from pydantic import Field

from certauth.encoding import from_b64
from certauth.errors import ConfigError, KeyMaterialError, RequestError
from certauth.keys import raw
from certauth.names import TrustDomain, is_name
from certauth.small_order import is_small_order
from certauth.tokens.datalog import KeyRef
from certauth.tokens.signing import key_ref
from certauth.tokens.verify import TrustedAttester
from policy.documents import Model

_MEMBER = re.compile(r"([^:]+):(.+)", re.DOTALL)


class AttesterTable(Model):
    """The table as it is written."""

    domain: str
    key: str
    groups: Annotated[tuple[str, ...], Field(strict=False, min_length=1, max_length=256)]


def attester_of(table: AttesterTable, where: str) -> TrustedAttester:
    """The attester a table describes; ``ConfigError`` (``trust-invalid``) naming what is wrong with it."""
    try:
        domain = TrustDomain.parse(table.domain)
    except RequestError as error:
        raise ConfigError("trust-invalid", f"{where}.domain: {error.message}", hint=error.hint) from error
    for pattern in table.groups:
        if not is_name(pattern):
            raise ConfigError(
                "trust-invalid",
                f"{where}.groups: {pattern!r} is not a pattern of groups",
                hint="the whole name of a group; * is any number of characters",
            )
    return TrustedAttester(key=_key(table.key, where), domain=domain, groups=table.groups)


def by_key(attesters: Iterable[TrustedAttester]) -> Mapping[KeyRef, TrustedAttester]:
    """Attesters by their keys. ``ConfigError`` (``attester-conflict``): one key speaks for one domain, in one entry."""
    found: dict[KeyRef, TrustedAttester] = {}
    for attester in attesters:
        if attester.key in found:
            raise ConfigError(
                "attester-conflict",
                f"one key is to vouch for {found[attester.key].domain} and again for {attester.domain}",
                hint="one [[attester]] for each key, with all its groups",
            )
        found[attester.key] = attester
    return MappingProxyType(found)


def _key(text: str, where: str) -> KeyRef:
    try:
        public = (
            load_pem_public_key(text.encode()) if text.lstrip().startswith("-----") else load_der_public_key(from_b64(text))
        )
        match public:
            case Ed25519PublicKey() if is_small_order(raw(public)):
                raise ValueError("a key that anybody can sign for")
            case Ed25519PublicKey() | EllipticCurvePublicKey():
                return key_ref(public)
            case _:
                raise ValueError("another kind of key")
    except (ValueError, UnsupportedAlgorithm, KeyMaterialError) as error:
        raise ConfigError(
            "trust-invalid",
            f"{where}.key is not an Ed25519 or P-256 public key",
            hint="a SubjectPublicKeyInfo, as PEM or as its base64: openssl pkey -in group.key -pubout",
        ) from error


def is_member(text: str) -> bool:
    """Whether ``text`` names a group of another facility: ``nsls.example:run7``."""
    found = _MEMBER.fullmatch(text)
    if found is None or not is_name(found[2]):
        return False
    try:
        TrustDomain.parse(found[1])
    except RequestError:
        return False
    return True
