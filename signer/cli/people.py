"""Looking up whom an admin's command is about, recording what becomes of them, and showing it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from certauth.cli.output import fields
from certauth.clock import in_words, rfc3339
from certauth.enrolment import Enrolment, Login
from certauth.errors import StoreError, UsageError
from certauth.names import Kind, Principal
from certauth.revocation import MAX_REASON
from signer.changing import change
from signer.cli.common import Facility, acting
from signer.rows import ApplicationRow, EnrolledPrincipal, StoreRow
from signer.store import Store

MACHINES = frozenset({Kind.SERVICE, Kind.HOST, Kind.AGENT})
_LONGEST_SUBJECT = 255


def person(place: Facility, name: str) -> EnrolledPrincipal:
    """The person enrolled under ``name``; ``UsageError`` (``not-enrolled``)."""
    found = place.store.enrolled_principal(Principal.make(place.authority.domain, Kind.USER, name))
    if found is None:
        raise UsageError("not-enrolled", f"nobody is enrolled as {name}", hint="certauth signer user list")
    return found


def everybody(store: Store, kinds: Collection[Kind]) -> Iterator[EnrolledPrincipal]:
    """Everybody enrolled of these kinds, by principal, in one page after another."""
    page = store.enrolled_principals()
    while page:
        yield from (one for one in page if one.enrolment.principal.kind in kinds)
        page = store.enrolled_principals(after=str(page[-1].enrolment.principal))


def login_of(place: Facility, issuer: str | None, subject: str | None) -> Login:
    """A login at a configured provider, which is named by its URL or id and may be left out where there is only one."""
    if not subject or len(subject) > _LONGEST_SUBJECT or not subject.isprintable():
        raise UsageError("subject-missing", "--subject is needed", hint="a refused login tells the subject")
    return Login(issuer_url(place, issuer), subject)


def issuer_url(place: Facility, given: str | None) -> str:
    """The URL of a configured provider, from its URL or id; ``UsageError`` (``issuer-unknown``)."""
    configured = place.settings.issuer
    found = [issuer.url for issuer in configured if given in {issuer.url, issuer.id}]
    if given is None and len(configured) == 1:
        return configured[0].url
    if not found:
        known = ", ".join(issuer.url for issuer in configured) or "none"
        raise UsageError("issuer-unknown", f"{given or 'no issuer'} is not configured", hint=f"configured: {known}")
    return found[0]


def check_free(place: Facility, login: Login, *, but: Principal | None = None) -> None:
    """Raise ``UsageError`` (``already-enrolled``) for a login that leads to anybody ``but`` this one."""
    taken = place.store.enrolment(issuer=login.issuer, subject=login.subject)
    if taken is not None and taken.principal != but:
        raise UsageError(
            "already-enrolled",
            f"this login leads to {taken.principal} already",
            hint="certauth signer user list shows whose it is",
        )


def act(
    place: Facility,
    *,
    action: str,
    principal: Principal,
    reason: str,
    rows: tuple[StoreRow, ...],
    terms: dict[str, Any] | None,
) -> int:
    """Record one act of whoever is at the keyboard: all of it, or nothing; the index of its entry in the log."""
    why = checked_reason(reason)
    submission = change(action=action, principal=principal, by=acting(), why=why, rows=rows, terms=terms)
    try:
        return place.ledger.record(submission).index
    except StoreError as error:
        if error.code != "store-conflict":
            raise
        raise UsageError(
            "changed-meanwhile", f"nothing was changed: {error.message}", hint="look again, and repeat what is still needed"
        ) from error


def checked_reason(reason: str) -> str:
    """The reason, if it is one line of text; ``UsageError`` (``bad-reason``)."""
    if not 0 < len(reason) <= MAX_REASON or not reason.isprintable() or not reason.strip():
        raise UsageError(
            "bad-reason",
            "this cannot be a reason",
            hint=f"one line of 1 to {MAX_REASON} printable characters, without personal data: the log keeps it for ever",
        )
    return reason


def words(enrolment: Enrolment, display: str = "") -> str:
    """An enrolment for people to read."""
    rights = "; ".join(f"{right.operation} {right.path} at {right.service}" for right in enrolment.rights)
    return fields(
        [
            ("principal", enrolment.principal),
            ("display", display or None),
            *(("login", f"{login.subject} at {login.issuer}") for login in people_only(enrolment.logins)),
            ("state", "disabled" if enrolment.disabled else "enabled"),
            ("owner", enrolment.owner),
            ("rights", rights or "none"),
            ("groups", ", ".join(enrolment.groups) or None),
            ("roles", ", ".join(enrolment.roles) or None),
            ("projects", ", ".join(enrolment.projects) or None),
            ("assurance", f"at most {enrolment.assurance}"),
            ("longest life", in_words(enrolment.max_lifetime) if enrolment.max_lifetime else None),
            ("ends", rfc3339(enrolment.expires_at) if enrolment.expires_at else None),
            ("networks", ", ".join(map(str, enrolment.networks)) or None),
            ("hosts", ", ".join(enrolment.hosts) or None),
        ]
    )


def people_only(logins: tuple[Login, ...]) -> list[Login]:
    """The logins at identity providers; a machine's own is its name, and nothing to show."""
    return [login for login in logins if not login.issuer.startswith("spiffe://")]


def application_facts(application: ApplicationRow) -> dict[str, object]:
    """An application as JSON."""
    return {
        "name": Principal.parse(application.name).id,
        "issuer": application.login.issuer,
        "subject": application.login.subject,
        "display": application.display,
        "email": application.email or None,
        "state": str(application.state),
        "asked_at": rfc3339(application.asked_at),
        "decided_at": None if application.decided_at is None else rfc3339(application.decided_at),
        "decided_by": application.decided_by,
    }
