"""What ``certauth signer issuer explain`` says: each check, who it is, each rule, and what is still to come."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

from certauth.cli.output import fields
from certauth.clock import rfc3339
from certauth.identity import VerifiedIdentity
from certauth.identity.mapping import Admission, NotAdmitted
from signer.explaining import TokenReport

_THEN = {
    "enrolled": "then: an admin must have enrolled this issuer and subject",
    "invite": "then: whoever is not enrolled yet needs an invitation",
    "approve": "then: whoever is not enrolled yet waits for an admin",
    "open": "then: whoever is not enrolled yet is",
}


def explanation(report: TokenReport, *, with_claims: bool) -> tuple[dict[str, object], str]:
    """The report as data and as text; the claims of a verified token only if they are asked for."""
    lines = [f"{'refused' if check.code else 'ok':<8} {check.name:<22} {check.text}" for check in report.checks]
    data: dict[str, object] = {
        "admitted": report.admitted,
        "checks": [{"name": check.name, "code": check.code, "text": check.text} for check in report.checks],
        "code": None if report.error is None else report.error.code,
    }
    identity, rules = report.identity, report.rules
    if identity is None or rules is None:
        hint = [] if report.error is None or report.error.hint is None else [f"hint: {report.error.hint}"]
        return data, "\n".join([*lines, "", f"refused: {report.error}", *hint])
    who = _identity(identity)
    data |= {"identity": who, "rules": list(rules.lines()), "decision": _decision(rules.decision)}
    lines += ["", fields(who.items()), "", *rules.lines()]
    if isinstance(rules.decision, Admission):
        lines += [*_becomes(rules.decision), _THEN[report.enrolment]]
    if with_claims:
        data["claims"] = dict(identity.claims)
        lines += ["", *(f"{name} = {value!r}" for name, value in identity.claims.items())]
    return data, "\n".join(lines)


def _identity(identity: VerifiedIdentity) -> dict[str, object]:
    return {
        "issuer": identity.issuer,
        "subject": identity.subject,
        "kind": str(identity.kind),
        "binding": str(identity.binding),
        "assurance": identity.assurance,
        "acr": identity.acr,
        "amr": " ".join(identity.amr) or None,
        "email": identity.email,
        "name": identity.name,
        "expires": rfc3339(identity.expires_at),
        "claims": " ".join(sorted(identity.claims)),
    }


def _decision(decision: Admission | NotAdmitted) -> dict[str, object]:
    """The decision with JSON's types."""
    return {field.name: _plain(getattr(decision, field.name)) for field in dataclasses.fields(decision)}


def _plain(value: object) -> object:
    match value:
        case tuple():
            return [_plain(each) for each in value]
        case timedelta():
            return int(value.total_seconds())
        case None | bool() | int() | str():
            return value
        case _:
            return {name: _plain(getattr(value, name)) for name in ("service", "operation", "path")}


def _becomes(admission: Admission) -> list[str]:
    members = [(name, value) for name, value in _decision(admission).items() if name != "rule" and value not in (None, [])]
    return [f"  {name}: {', '.join(map(str, value)) if isinstance(value, list) else value}" for name, value in members]
