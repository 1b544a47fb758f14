"""The shape of every record, member by member: the one table that both writing and reading obey.

A check answers ``None`` for a value it accepts and else says what it expected; it never repeats the value, which may be
personal or hostile.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from certauth.errors import RequestError
from certauth.names import Principal

Check = Callable[[object], str | None]

_MAX_INT = 2**53 - 1


def _matches(pattern: str, what: str) -> Check:
    compiled = re.compile(pattern)
    return lambda value: None if isinstance(value, str) and compiled.fullmatch(value) else what


def _text(limit: int) -> Check:
    what = f"printable text of 1 to {limit} characters"
    return lambda value: None if isinstance(value, str) and 0 < len(value) <= limit and value.isprintable() else what


def _one_of(*words: str) -> Check:
    what = f"one of {', '.join(words)}"
    return lambda value: None if isinstance(value, str) and value in words else what


def _integer(value: object) -> str | None:
    return None if type(value) is int and 0 <= value <= _MAX_INT else "a whole number from 0 to 2^53 - 1"


def _principal(value: object) -> str | None:
    if not isinstance(value, str):
        return "a principal"
    try:
        Principal.parse(value)
    except RequestError:
        return "a principal"
    return None


def _list_of(member: Check) -> Check:
    def check(value: object) -> str | None:
        if not isinstance(value, list):
            return "a list"
        return next((fault for fault in map(member, value) if fault), None)

    return check


def _triple(value: object) -> str | None:
    if not isinstance(value, list) or len(value) != 3:
        return "service, operation and path"
    return next((fault for fault in map(_TEXT, value) if fault), None)


def _shape(required: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    members = {**required, **(optional or {})}

    def check(value: object) -> str | None:
        if not isinstance(value, dict):
            return "an object"
        for name, member in value.items():
            if name not in members:
                return "no other members than " + ", ".join(members)
            if fault := members[name](member):
                return f"{name}: {fault}"
        return next((f"{name}: it is missing" for name in required if name not in value), None)

    return check


_TEXT = _text(256)
_HASH = _matches("[0-9a-f]{64}", "SHA-256 in hex")
_COMMITMENT = _matches("[A-Za-z0-9_-]{43}", "a commitment")
_CODE = _matches("[a-z][a-z0-9-]{0,63}", "a code")
_KID = _matches("[0-9a-f]{8}", "a key id")
_BLOCK = _matches("[0-9a-f]{32}", "a block id")
_ID = _matches("[A-Za-z0-9._:-]{1,64}", "an id")

_COMMON: Mapping[str, Check] = {
    "v": lambda value: None if type(value) is int and value == 1 else "1",
    "kind": _ID,
    "log": _matches("[A-Za-z0-9][A-Za-z0-9._/:-]{0,254}", "an origin"),
    "rid": _ID,
    "ts": _integer,
    "src": _shape({"replica": _ID, "ver": _ID, "cfg": _HASH}),
}
_PROOF = _one_of("id_token", "access_token", "workload", "client_assertion", "code", "certificate", "administrator")
_CLAMP = _shape({"what": _TEXT, "asked": _integer, "got": _integer, "by": _TEXT})

KINDS: Mapping[str, Check] = {
    kind: _shape({**_COMMON, **sections})
    for kind, sections in {
        "grant.cert": {
            "actor": _shape({"principal": _principal, "iss": _text(512), "sub_c": _COMMITMENT, "assurance": _integer}),
            "proof": _shape({"kind": _PROOF, "binding": _CODE, "digest": _HASH}),
            "decision": _shape({"rule": _TEXT, "ignored": _list_of(_TEXT)}, {"clamp": _CLAMP, "why": _text(500)}),
            "grant": _shape(
                {
                    "profile": _CODE,
                    "serial": _matches("[1-9a-f][0-9a-f]{0,39}", "a serial number in hex"),
                    "cert": _HASH,
                    "spki": _HASH,
                    "nbf": _integer,
                    "exp": _integer,
                }
            ),
        },
        "grant.token": {
            "actor": _shape({"principal": _principal, "peer": _HASH}),
            "decision": _shape({"rule": _TEXT}, {"clamp": _CLAMP}),
            "grant": _shape(
                {
                    "jti": _matches("[0-9a-f]{16,64}", "a token id"),
                    "kid": _KID,
                    "aud": _list_of(_TEXT),
                    "rights": _list_of(_triple),
                    "exp": _integer,
                    "form": _one_of("biscuit", "jwt"),
                    "token": _HASH,
                    "delegations": _integer,
                },
                {"block": _BLOCK},
            ),
        },
        "grant.deny": {
            "actor": _shape({}, {"principal": _principal, "iss": _text(512), "sub_c": _COMMITMENT, "peer": _HASH}),
            # An entry of before has neither rule nor kind and binding of the proof.
            "decision": _shape({"operation": _CODE, "code": _CODE}, {"rule": _TEXT}),
            "proof": _shape({}, {"kind": _PROOF, "binding": _CODE, "digest": _HASH}),
        },
        "revoke": {
            "revoke": _shape(
                {
                    "kind": _one_of("certificate", "jti", "block", "principal", "kid"),
                    "value": _TEXT,
                    "reason": _text(500),
                    "by": _TEXT,
                },
                {"before": _integer},
            ),
        },
        "enrolment.change": {
            "enrolment": _shape(
                {
                    "action": _CODE,
                    "principal": _principal,
                    "by": _TEXT,
                    "why": _text(500),
                    "terms_c": _list_of(_COMMITMENT),
                }
            ),
        },
        "service.start": {"service": _shape({"ver": _ID, "cfg": _HASH})},
        "issuer.add": {"issuer": _shape({"id": _CODE, "url": _text(512), "by": _TEXT, "why": _text(500)})},
        "key.add": {"key": _shape({"use": _CODE, "kid": _KID, "spki": _HASH, "by": _TEXT}, {"why": _text(500)})},
        "key.state": {
            "key": _shape(
                {
                    "use": _CODE,
                    "changes": _list_of(_shape({"kid": _KID, "state": _CODE})),
                    "by": _TEXT,
                    "why": _text(500),
                }
            ),
        },
    }.items()
}
"""For every kind of record, the check of the whole of it."""
