"""Decisions in words and as JSON: which rule, which check, which value was not as it should be.

For the owner of a service, at the time (``explain``) or afterwards from the decision files (``find_records``,
``explain_record``). What the *caller* is told is less, and is chosen in ``policy.problem``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never, cast

from certauth.audit.decisions import verify_lines
from certauth.clock import from_timestamp, rfc3339
from certauth.encoding import strict_json
from certauth.errors import ConfigError, UsageError
from policy.decision import Check, Decision, Deny, Permit
from policy.request import AccessRequest

_CHECK_OF: Mapping[str, str] = {
    "path-ambiguous": "request",
    "method-unknown": "request",
    "token-ambiguous": Check.TOKEN,
    "no-route": Check.ROUTE,
    "domain-unknown": Check.CERTIFICATE,
    "name-not-accepted": Check.CERTIFICATE,
    "lifetime-too-long": Check.CERTIFICATE,
    "revocations-unknown": Check.FRESHNESS,
    "revocations-stale": Check.FRESHNESS,
    "too-many-blocks": Check.TOKEN,
    "token-binding": Check.BINDING,
    "right-not-held": Check.RIGHTS,
    "token-audience": Check.RIGHTS,
    "token-check": Check.RIGHTS,
    "token-network": Check.RIGHTS,
    "token-operation": Check.RIGHTS,
    "token-path": Check.RIGHTS,
    "token-project": Check.RIGHTS,
    "token-member": Check.RIGHTS,
    "token-used-up": Check.RIGHTS,
    "uses-not-supported": Check.RIGHTS,
    "uses-too-many": Check.RIGHTS,
    "token-body": Check.RIGHTS,
    "body-too-large": Check.RIGHTS,
    "body-timeout": Check.RIGHTS,
    "body-incomplete": Check.RIGHTS,
    "principal-not-allowed": Check.REQUIREMENTS,
    "assurance-too-low": Check.REQUIREMENTS,
    "group-required": Check.REQUIREMENTS,
    "role-required": Check.REQUIREMENTS,
    "project-required": Check.REQUIREMENTS,
    "member-required": Check.REQUIREMENTS,
    "credential-too-short": Check.REQUIREMENTS,
}
_PREFIXES: Mapping[str, Check] = {
    "token-": Check.TOKEN,
    "lint-": Check.TOKEN,
    "certificate-": Check.CERTIFICATE,
    "chain-": Check.CERTIFICATE,
}
_OURS = frozenset({"_chain", "seq"})
_SHOWN = (
    *("hint", "route", "at", "principal", "certificate", "user", "token", "delegated", "vouched", "uses"),
    *("address", "operation", "policy"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """``data`` for programs, ``text`` for people."""

    data: Mapping[str, object]
    text: str


def check_of(code: str) -> str | None:
    """The check that denies with ``code``; ``None`` if none does (a failure of the door itself, say)."""
    if code in _CHECK_OF:
        return _CHECK_OF[code]
    return next((check for prefix, check in _PREFIXES.items() if code.startswith(prefix)), None)


def explain(decision: Decision, request: AccessRequest) -> Explanation:
    """A decision that was just taken."""
    data: dict[str, object] = {"kind": str(request.kind), "method": request.method, "path": request.path}
    data["held"] = [f"{check}: {_found(check, decision, request)}" for check in decision.held]
    match decision:
        case Permit():
            data |= {"outcome": "permit", "code": "permitted"}
        case Deny():
            data |= {"outcome": "deny", "code": decision.code, "status": decision.status}
            data |= {"check": check_of(decision.code), "reasons": list(decision.reasons), "hint": decision.hint}
        case _:
            assert_never(decision)
    data["route"] = decision.route.name if decision.route is not None else None
    return Explanation(data=data, text=_words(data))


def _found(check: Check, decision: Decision, request: AccessRequest) -> str:
    """What a check that held was satisfied with."""
    route, peer, token = decision.route, decision.peer, decision.token
    match check:
        case Check.ROUTE if route is not None:
            return f"{route.name}, access {route.access}"
        case Check.CERTIFICATE if peer is not None:
            return f"{peer.principal}, assurance {peer.assurance}, until {rfc3339(peer.not_after)}"
        case Check.TOKEN if token is not None:
            vouched = f", vouched for as {', '.join(map(str, token.members))}" if token.members else ""
            return f"{token.jti} of {token.user}, until {rfc3339(token.expires_at)}{vouched}"
        case Check.BINDING if token is not None and token.hand_overs:
            return f"handed over: certificate {' → '.join(f'{each[:16]}…' for each in token.chain)}"
        case Check.BINDING if token is not None:
            return f"works for certificate {token.holder[:16]}…"
        case Check.RIGHTS if route is not None:
            return f"{route.operation_of(request)} {route.resource(request.path)}"
        case Check.FRESHNESS:
            return "revocations are current"
        case _:
            return "met"


def explain_record(record: Mapping[str, object]) -> Explanation:
    """A decision as it stands in a decision file. ``record`` has been verified, but what is in it came from outside."""
    data = {name: value for name, value in record.items() if name not in _OURS}
    if isinstance(at := record.get("at"), int):
        data["at"] = rfc3339(from_timestamp(at // 1_000_000))
    if record.get("outcome") == "deny":
        data["check"] = check_of(str(record.get("code")))
    return Explanation(data=data, text=_words(data))


def find_records(path: Path, request_id: str) -> tuple[Mapping[str, object], ...]:
    """Everything recorded under a request id, in a decision file or, for the path that ``policy.toml`` names, in all of them.

    The files are verified first: an explanation read from a file that somebody changed explains nothing. Raises ``LogError``
    for such a file, ``ConfigError`` (``unreadable``) if there is none, ``UsageError`` (``request-unknown``) if the id is in
    none of them.
    """
    files = [path] if path.is_file() else sorted(path.parent.glob(f"{path.stem}-*{path.suffix}"))
    if not files:
        raise ConfigError(
            "unreadable",
            f"there is no decision file {path}, nor one of a process ({path.stem}-0{path.suffix})",
            hint="name the path under [record] in policy.toml, or the file itself",
        )
    found = [record for file in files for record in _records(file) if record.get("request") == request_id]
    if not found:
        raise UsageError(
            "request-unknown",
            f"no decision about request {request_id[:64]!r} is in {path}",
            hint="the id is in the problem document, the x-request-id header and the app's log",
        )
    return tuple(found)


def _records(file: Path) -> Iterator[Mapping[str, object]]:
    try:
        with file.open("rb") as lines:
            whole = verify_lines(lines).size
        with file.open("rb") as lines:
            for line in lines.read(whole).split(b"\n")[:-1]:
                yield cast("Mapping[str, object]", strict_json(line))  # as verified
    except OSError as error:
        hint = "ask as the user that runs the service, or have the file made readable for you"
        raise ConfigError("unreadable", f"cannot read {file}: {error.strerror}", hint=hint) from error


def _words(data: Mapping[str, object]) -> str:
    lines = [
        f"{str(data.get('outcome', '?')).upper()} {data.get('code')}: {data.get('method') or ''} {data.get('path')}".rstrip()
    ]
    held = data.get("held")
    if isinstance(held, list):
        lines += [f"  held       {item}" for item in held]
    reasons = data.get("reasons")
    if isinstance(reasons, list):
        lines += [f"  failed     {data.get('check') or 'the door'}: {reason}" for reason in reasons]
    lines += [f"  {name:<10} {_shown(data[name])}" for name in _SHOWN if data.get(name) is not None]
    return "\n".join(lines)


def _shown(value: object) -> object:
    return ", ".join(map(str, value)) if isinstance(value, list) else value
