"""What ``certauth signer issuer explain`` says: each check, who it is, each rule, and what the request would come to."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import assert_never

from certauth.cli.output import fields
from certauth.clock import in_words, rfc3339
from certauth.identity import VerifiedIdentity
from certauth.identity.mapping import Admission, NotAdmitted
from certauth.issuance import CertificateGrant, Refusal
from certauth.profiles import BACKDATE
from signer.explaining import TokenReport
from signer.foreseeing import Foreseen

_HINTS = {
    "address-not-allowed": "say where they ask from: --address",
    "invite-needed": "invite them: certauth signer user invite; to try an invitation that they have: --invite",
    "not-enrolled": "enrol them: certauth signer user enroll NAME --issuer … --subject …, with the two above",
    "approval-pending": "certauth signer user applications; then user approve or user deny",
    "not-admitted": "the reason is above; whoever logs in is not told it",
}
"""What an administrator can do, where the refusal itself speaks to whoever logs in."""


def explanation(report: TokenReport, *, with_claims: bool) -> tuple[dict[str, object], str]:
    """The report as data and as text; the claims of a verified token only if they are asked for.

    The last line but for a hint is the outcome: ``would get: …``, ``would be refused: code: …`` or ``not known: …``.
    """
    lines = [f"{'refused' if check.code else 'ok':<8} {check.name:<22} {check.text}" for check in report.checks]
    outcome, last = _outcome(report)
    data: dict[str, object] = {
        "admitted": report.admitted,
        "checks": [{"name": check.name, "code": check.code, "text": check.text} for check in report.checks],
        "code": outcome["code"],
        "outcome": outcome,
    }
    identity, rules = report.identity, report.rules
    if identity is None or rules is None:
        return data, "\n".join([*lines, "", *last])
    who = _identity(identity)
    data |= {"identity": who, "rules": list(rules.lines()), "decision": _decision(rules.decision)}
    lines += ["", fields(who.items()), "", *rules.lines()]
    if isinstance(rules.decision, Admission):
        lines += _becomes(rules.decision)
    if with_claims:
        data["claims"] = dict(identity.claims)
        lines += ["", *(f"{name} = {value!r}" for name, value in identity.claims.items())]
    return data, "\n".join([*lines, "", *last])


def _outcome(report: TokenReport) -> tuple[dict[str, object], list[str]]:
    """What the request for a certificate would come to, as data and as the last lines."""
    if report.error is not None:
        return _refused(report.error.code, report.error.message, report.error.hint)
    foreseen = report.foreseen
    if foreseen is None:
        if report.admitted:
            text = "not known: the rules let this login in, but there is no database here that says whom it leads to"
            return {"granted": None, "code": None}, [text]
        return _refused("not-admitted", "the rules of this facility do not admit this login", _HINTS["not-admitted"])
    match foreseen.outcome:
        case Refusal(code, reason, hint):
            why = [f"because {foreseen.why}", ""] if foreseen.why and report.admitted else []
            data, lines = _refused(code, reason, _HINTS.get(code, hint))
            return data, [*why, *lines]
        case CertificateGrant() as grant:
            return _granted(grant, foreseen)
        case _:
            assert_never(foreseen.outcome)


def _refused(code: str, message: str, hint: str | None) -> tuple[dict[str, object], list[str]]:
    lines = [f"would be refused: {code}: {message}", *([] if hint is None else [f"hint: {hint}"])]
    return {"granted": False, "code": code, "message": message}, lines


def _granted(grant: CertificateGrant, foreseen: Foreseen) -> tuple[dict[str, object], list[str]]:
    lifetime = grant.not_after - grant.not_before - BACKDATE
    rights = [f"{right.service}:{right.operation}:{right.path}" for right in foreseen.rights]
    data: dict[str, object] = {
        "granted": True,
        "code": None,
        "principal": str(grant.principal),
        "lifetime": int(lifetime.total_seconds()),
        "assurance": grant.assurance,
        "rights": rights,
        "newcomer": foreseen.newcomer,
    }
    enrolled = ", enrolled by this very login" if foreseen.newcomer else ""
    what = ", ".join(rights) or "no rights"
    certificate = f"for {in_words(lifetime)}, assurance {grant.assurance}"
    return data, [f"would get: {grant.principal}{enrolled}, {certificate}, {what}"]


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
