"""Which kind of token this is (check 3): by its header's ``typ``, and by what its claims say it is.

Providers sign several kinds of token with one key and often with one audience. A kind is told by what only it has, and a token
that shows the mark of another kind is refused as that, whatever else fits (RFC 8725 §3.11, §3.12).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from certauth.errors import ProofError
from certauth.identity.kinds import ProofKind

KEY_BOUND: Final = "dpop+id_token"  # OpenID Connect Key Binding 1.0
ACCESS_TOKEN: Final = "at+jwt"  # noqa: S105 - RFC 9068 §2.1

_TYPES: Final[Mapping[ProofKind, frozenset[str]]] = MappingProxyType(
    {
        ProofKind.ID_TOKEN: frozenset({"jwt", KEY_BOUND}),
        ProofKind.ACCESS_TOKEN: frozenset({"jwt", ACCESS_TOKEN}),
        ProofKind.WORKLOAD: frozenset({"jwt", "jose"}),  # JOSE: SPIFFE JWT-SVID §2.3
        ProofKind.CLIENT_ASSERTION: frozenset({"jwt", "client-authentication+jwt"}),
    }
)
# Claims in which some providers say what a token is: Cognito and Hydra token_use, Keycloak typ, idpyoidc token_class.
_NAMES: Final[Mapping[ProofKind, Mapping[str, tuple[str, ...]]]] = MappingProxyType(
    {
        ProofKind.ID_TOKEN: {"token_use": ("id",), "typ": ("ID", "JWT"), "token_class": ("id_token",)},
        ProofKind.ACCESS_TOKEN: {
            "token_use": ("access", "access_token"),
            "typ": ("Bearer", "DPoP", "JWT"),
            "token_class": ("access_token",),
        },
        ProofKind.WORKLOAD: {"token_use": (), "typ": (), "token_class": ()},
        ProofKind.CLIENT_ASSERTION: {"token_use": (), "typ": (), "token_class": ()},
    }
)
# What only the token of a login has (OpenID Connect Core §2, §3.3.2.11), of an API call (RFC 9068 §2.2), of a job in CI.
_LOGIN: Final = frozenset({"nonce", "at_hash", "c_hash", "s_hash"})
_PERSON: Final = _LOGIN | {"auth_time", "acr", "amr", "sid"}
_ACCESS: Final = frozenset({"client_id", "scp"})
_JOB: Final = frozenset({"kubernetes.io", "job_workflow_ref", "repository", "run_id", "project_path", "pipeline_id", "job_id"})


def check_type(typ: str | None, claims: Mapping[str, object], kind: ProofKind) -> str:
    """The token's media type without ``application/``, ``jwt`` if there is none; ``ProofError`` (``wrong-type``) if it is of
    another kind than ``kind``.

    Logout tokens, and whatever else reports events, are no identity proof of any kind.
    """
    media = "jwt" if typ is None else typ.lower().removeprefix("application/")
    says = _NAMES[kind].items()
    if (
        media not in _TYPES[kind]
        or "events" in claims  # OpenID Connect Back-Channel Logout §2.4, RFC 8417 §2.2
        or any(name in claims and claims[name] not in values for name, values in says)
        or (kind is ProofKind.WORKLOAD and claims.keys() & (_PERSON | _ACCESS))
    ):
        raise wrong_type(kind)
    return media


def check_unbound_login(claims: Mapping[str, object]) -> None:
    """An ID token that no key and no nonce vouches for must not look like anything else; ``ProofError`` (``wrong-type``)."""
    if claims.keys() & (_ACCESS | _JOB) or isinstance(claims.get("scope"), str):
        raise wrong_type(ProofKind.ID_TOKEN)


def check_untyped_access(claims: Mapping[str, object]) -> None:
    """An access token whose header does not say so must not look like the token of a login; ``ProofError`` (``wrong-type``)."""
    if claims.keys() & _LOGIN:
        raise wrong_type(ProofKind.ACCESS_TOKEN)


def wrong_type(kind: ProofKind) -> ProofError:
    """The refusal of a token of another kind than it was sent as."""
    return ProofError(
        "wrong-type",
        f"the token is not what it was sent as, {kind.replace('_', ' ')}",
        hint="send the token of that kind, as its issuer made it: an ID token, access token and job token are not the same",
    )
