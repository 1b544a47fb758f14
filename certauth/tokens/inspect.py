"""What a token says, in data and in words: from its decoded structures, never from text its holders wrote."""

from __future__ import annotations

from datetime import datetime, timedelta

from certauth.clock import from_timestamp, in_words, rfc3339
from certauth.encoding import Json
from certauth.tokens.codec import decode, from_text
from certauth.tokens.conditions import Condition, Window
from certauth.tokens.datalog import Check
from certauth.tokens.lint import Linted, lint
from certauth.tokens.meaning import key_name, words
from certauth.tokens.signing import link_ids
from certauth.tokens.vocabulary import Right

_UNREAD = "a check of another program's making"


def block_ids(token: bytes) -> tuple[str, ...]:
    """The revocation id of each block of a token, the authority first. Raises ``TokenError`` if it is none."""
    return link_ids(decode(token))


def describe(unverified_token: str, *, now: datetime) -> dict[str, Json]:
    """Who may do what, where and until when according to a token: JSON-able, and under ``words`` as sentences.

    No signature is verified, as whoever inspects a token need not know its issuer: so say ``unverified`` when showing it.
    Raises ``TokenError`` for what is no token of profile ``fac/1``.
    """
    token = decode(from_text(unverified_token))
    linted = lint(token)
    authority = linted.authority
    conditions = [block.checks for block in token.contents]
    end = min(condition.before for block in conditions for condition in block if isinstance(condition, Window))
    return {
        "profile": "fac/1",
        "kid": token.kid,
        "issuer": authority.issuer,
        "user": str(authority.user),
        "jti": authority.jti,
        "issued_at": rfc3339(from_timestamp(authority.issued_at)),
        "not_before": rfc3339(from_timestamp(authority.not_before)),
        "expires_at": rfc3339(from_timestamp(authority.expires_at)),
        "usable_until": rfc3339(from_timestamp(end)),
        "audience": list(authority.audience),
        "assurance": authority.assurance,
        "groups": list(authority.groups),
        "roles": list(authority.roles),
        "projects": list(authority.projects),
        "rights": [{"service": right.service, "operation": right.operation, "path": right.path} for right in authority.rights],
        "peer_fingerprint": authority.peer.fingerprint,
        "delegated_to": [handed.to.fingerprint for handed in linted.hand_overs],
        "delegable": linted.peer.delegate_key is not None,
        "delegation_depth": linted.peer.depth if linted.peer.delegate_key is not None else 0,
        "attestations": [
            {
                "key": key_name(attestation.key),
                "groups": list(attestation.groups),
                "expires_at": rfc3339(from_timestamp(attestation.before)),
            }
            for attestation in linted.attestations
        ],
        "sealed": token.sealed,
        "block_ids": list(link_ids(token)),
        "narrowings": [[_in_words(condition) for condition in block] for block in conditions[1:]],
        "words": [*_sentences(linted, conditions, end, now)],
    }


def _sentences(linted: Linted, conditions: list[tuple[Condition | Check, ...]], end: int, now: datetime) -> list[str]:
    left = timedelta(seconds=end - int(now.timestamp()))
    authority = linted.authority
    lines = [f"{authority.user}, according to {authority.issuer}"]
    lines += [f"may {right.operation} {_place(right)} at {right.service}" for right in authority.rights]
    lines += [_in_words(condition) for condition in conditions[0]]
    said = {
        attestation.block: f"key {key_name(attestation.key)} vouches for {', '.join(attestation.groups)}"
        for attestation in linted.attestations
    }
    said |= {handed.block: f"handed over by key {key_name(handed.key)}" for handed in linted.hand_overs}
    for number, block in enumerate(conditions[1:], 1):
        lines.append(f"{said.get(number, 'narrowed')} ({number}): " + "; ".join(_in_words(condition) for condition in block))
    lines.append(f"ended {in_words(left)}" if left <= timedelta(0) else f"ends in {in_words(left)}")
    return lines


def _in_words(condition: Condition | Check) -> str:
    return _UNREAD if isinstance(condition, Check) else words(condition)


def _place(right: Right) -> str:
    return f"everything below {right.path}" if right.path.endswith("/") else right.path
