"""A token as a JWT access token (RFC 9068), for services that know nothing else.

It says what the token would say, is bound to the same certificate (``cnf``, RFC 8705 §3.1), and can be neither narrowed nor
handed on. A service that does not compare ``cnf`` with the certificate of the connection takes it as a bearer token: that is
why a facility has to list the services it makes them for.

Rights are in ``authorization_details`` (RFC 9396), exactly. ``scope`` holds the subtrees only, as SciTokens and WLCG have them:
their scopes always reach below the path, so a right to one path alone has no such spelling. Nor has one to a path with a space:
whoever reads it would find two scopes, and the second would be what a holder wrote.
"""

from __future__ import annotations

import re
from typing import Final

from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from certauth.encoding import b64url, canonical_json
from certauth.errors import KeyMaterialError
from certauth.keys import Algorithm, SigningKey
from certauth.tokens.signing import signed
from certauth.tokens.vocabulary import Right, TokenSpec

ALGORITHM: Final = "ES256"
RIGHTS_TYPE: Final = "certauth-right"
"""``type`` of the entries of ``authorization_details``."""
_COORDINATE: Final = 32
_SCOPE: Final = re.compile(r"[!#-\[\]-~]+")


def mint_jwt(spec: TokenSpec, key: SigningKey, *, kid: str, issuer: str, client: str) -> str:
    """The JWT of ``spec``, signed with ES256.

    ``issuer`` is the signer's URL, under which its keys are found (RFC 8414); ``client`` is the principal in whose hands it
    works, which is another than the user if the token it was made from had been handed over. Raises ``KeyMaterialError``
    (``bad-key``) unless the key is a P-256 one whose signature verifies: nothing else is released.
    """
    if key.algorithm is not Algorithm.P256:
        raise KeyMaterialError("bad-key", "JWTs are signed with a P-256 key", hint="give the facility's key for JWTs")
    header = {"alg": ALGORITHM, "kid": kid, "typ": "at+jwt"}
    signing_input = b".".join(b64url(canonical_json(part)).encode() for part in (header, claims_of(spec, issuer, client)))
    r, s = decode_dss_signature(signed(key, signing_input))
    signature = r.to_bytes(_COORDINATE) + s.to_bytes(_COORDINATE)
    return f"{signing_input.decode('ascii')}.{b64url(signature)}"


def claims_of(spec: TokenSpec, issuer: str, client: str) -> dict[str, object]:
    """What the JWT states. Groups and roles as RFC 9068 §2.2.3.1 has them; ``ver`` makes SciTokens libraries read ``scope``."""
    claims: dict[str, object] = {
        "iss": issuer,
        "sub": spec.user,
        "aud": list(spec.audience),
        "client_id": client,
        "iat": int(spec.issued_at.timestamp()),
        "nbf": int(spec.not_before.timestamp()),
        "exp": int(spec.expires_at.timestamp()),
        "jti": spec.jti,
        "cnf": {"x5t#S256": b64url(bytes.fromhex(spec.peer_fingerprint))},
        "scope": " ".join(scopes_of(spec.rights)),
        "authorization_details": details_of(spec.rights),
        "assurance": spec.assurance,
        "ver": "scitoken:2.0",
    }
    lists = {"groups": spec.groups, "roles": spec.roles, "projects": spec.projects}
    claims |= {name: list(values) for name, values in lists.items() if values}
    if client != spec.user:
        claims["act"] = {"sub": client}  # RFC 8693 §4.1
    return claims


def is_scope(text: str) -> bool:
    """Whether ``text`` is one scope and stays one among others (``scope-token``, RFC 6749 §3.3)."""
    return bool(_SCOPE.fullmatch(text))


def scopes_of(rights: tuple[Right, ...]) -> list[str]:
    """``operation:/path`` of every right to a subtree that has that spelling, without the slash at its end."""
    subtrees = [right for right in rights if right.path.endswith("/")]
    return list(filter(is_scope, (f"{right.operation}:{right.path.rstrip('/') or '/'}" for right in subtrees)))


def details_of(rights: tuple[Right, ...]) -> list[dict[str, object]]:
    """``authorization_details`` of ``rights``: each of them, exactly."""
    return [
        {"type": RIGHTS_TYPE, "locations": [right.service], "actions": [right.operation], "path": right.path}
        for right in rights
    ]
