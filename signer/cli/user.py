"""``certauth signer user …``: who may have what here. Every change is an entry in the log, with who made it and why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from certauth.cli.output import Result, command, table
from certauth.clock import in_words, rfc3339, system_clock
from certauth.enrolment import Enrolment, Terms
from certauth.errors import UsageError
from certauth.names import Kind, Principal
from signer.admitting import settled
from signer.changing import facts
from signer.cli.common import Facility, acting, example_keys_option, facility, reason_option, settings_option
from signer.cli.people import act, check_free, everybody, login_of, person, words
from signer.cli.terms import terms_of, terms_options
from signer.cli.withdrawing import everything_with_agents, look_again, withdraw
from signer.rows import Change, EnrolledPrincipal, EnrolmentRow


@command(
    name="enroll",
    example="certauth signer user enroll alice --issuer https://idp.example.org --subject 248289761001 \\\n"
    "    --right data:read,write:/alice/ --group beamline-7 --reason 'proposal 2026-118'",
)
@click.argument("name")
@click.option("--issuer", help="The identity provider, by its URL or id; default: the only one configured.")
@click.option("--subject", help="The person's `sub` there. Needed the first time, and never changed afterwards.")
@terms_options
@click.option("--display", help="A name for people to read; default: the one they have.")
@reason_option
@settings_option
@example_keys_option
def enroll(
    name: str,
    issuer: str | None,
    subject: str | None,
    display: str | None,
    reason: str,
    settings_file: Path,
    *,
    allow_example_keys: bool,
    **given: Any,
) -> Result:
    """Enrol a person under NAME, or replace what they are enrolled for.

    The person is the pair of issuer and subject; NAME becomes their principal, spiffe://<trust domain>/user/NAME.

    JSON: principal, issuer, subject, logins, display, disabled, groups, roles, projects, rights, assurance, max_lifetime,
    owner, expires_at, networks, hosts.
    """
    terms = terms_of(given)
    with facility(settings_file, allow_example_keys=allow_example_keys) as place:
        principal = Principal.make(place.authority.domain, Kind.USER, name)
        present = place.store.enrolled_principal(principal)
        if present is None:
            enrolment = newcomer(place, principal, issuer, subject, terms)
            enrol(place, enrolment, display or "", reason=reason)
        else:
            _check_same(place, present, issuer, subject)
            enrolment = with_terms(present.enrolment, terms)
            display = present.display if display is None else display
            row = EnrolmentRow(enrolment=enrolment, display=display, by=acting(), at=system_clock(), change=Change.CHANGED)
            act(place, action="change", principal=principal, reason=reason, rows=(row,), terms=facts(enrolment, display))
    return Result(data=facts(enrolment, display or ""), text=f"{principal} is enrolled.\n\n{words(enrolment, display or '')}")


def newcomer(place: Facility, principal: Principal, issuer: str | None, subject: str | None, terms: Terms) -> Enrolment:
    """The enrolment of somebody new; ``UsageError`` for a login that is none, or leads to somebody."""
    login = login_of(place, issuer, subject)
    check_free(place, login)
    return with_terms(Enrolment(principal=principal, logins=(login,)), terms)


def with_terms(enrolment: Enrolment, terms: Terms) -> Enrolment:
    """The enrolment with other terms."""
    return replace(
        enrolment,
        groups=terms.groups,
        roles=terms.roles,
        projects=terms.projects,
        rights=terms.rights,
        assurance=3 if terms.assurance is None else terms.assurance,
        max_lifetime=terms.max_lifetime,
    )


def enrol(
    place: Facility,
    enrolment: Enrolment,
    display: str,
    *,
    reason: str,
    action: str = "enroll",
) -> None:
    """Record that somebody new is enrolled; whoever had asked to be has not to wait any more."""
    at, by = system_clock(), acting()
    row = EnrolmentRow(enrolment=enrolment, display=display, by=by, at=at, change=Change.NEW)
    asked = [one for login in enrolment.logins for one in settled(place.store.application(login), by=by, at=at)]
    terms = facts(enrolment, display)
    act(place, action=action, principal=enrolment.principal, reason=reason, rows=(row, *asked), terms=terms)


def _check_same(place: Facility, present: EnrolledPrincipal, issuer: str | None, subject: str | None) -> None:
    """Whoever is enrolled keeps their logins; another one is linked, and never put in the place of the first."""
    ids = {configured.id: configured.url for configured in place.settings.issuer}
    url = issuer if issuer is None else ids.get(issuer, issuer)
    if not any(url in (None, login.issuer) and subject in (None, login.subject) for login in present.enrolment.logins):
        raise UsageError(
            "identity-fixed",
            f"{present.enrolment.principal} belongs to another login",
            hint="choose another name, or add the login with: certauth signer user link",
        )


@command(name="list", example="certauth signer user list")
@settings_option
@example_keys_option
def list_(settings_file: Path, *, allow_example_keys: bool) -> Result:
    """List who is enrolled, disabled people included.

    JSON: people, each with the members of 'user enroll'.
    """
    with facility(settings_file, allow_example_keys=allow_example_keys) as place:
        people = list(everybody(place.store, {Kind.USER}))
    data = {"people": [facts(one.enrolment, one.display) for one in people]}
    columns = ("name", "state", "issuer", "subject", "display")
    return Result(data=data, text=table(columns, [line for one in people for line in _lines(one)]))


def _lines(one: EnrolledPrincipal) -> list[tuple[str, ...]]:
    """One line for each login; one without any for somebody whose personal data were deleted."""
    state = "disabled" if one.enrolment.disabled else "enabled"
    logins = one.enrolment.logins or (("", ""),)
    return [(one.enrolment.principal.id, state, issuer, subject, one.display) for issuer, subject in logins]


@command(example="certauth signer user show alice")
@click.argument("name")
@settings_option
@example_keys_option
def show(name: str, settings_file: Path, *, allow_example_keys: bool) -> Result:
    """Show one person: what they are enrolled for and which credentials of theirs are alive.

    JSON: the members of 'user enroll', enrolled_at, enrolled_by, certificates, tokens, agents.
    """
    with facility(settings_file, allow_example_keys=allow_example_keys) as place:
        found = person(place, name)
        return shown(place, found)


def shown(place: Facility, found: EnrolledPrincipal) -> Result:
    """A person or machine, with what of theirs is alive."""
    now, principal = system_clock(), found.enrolment.principal
    certificates = [c.row for c in place.store.certificates(principal=principal) if c.row.not_after > now]
    tokens = [t.row for t in place.store.tokens(principal=principal) if t.row.expires_at > now]
    agents = [one.enrolment for one in place.store.owned_by(principal)]
    alive: dict[str, object] = {
        "enrolled_at": rfc3339(found.enrolled_at),
        "enrolled_by": found.enrolled_by,
        "certificates": [{"fingerprint": c.fingerprint, "not_after": rfc3339(c.not_after)} for c in certificates],
        "tokens": [{"jti": t.jti, "audience": list(t.audience), "expires_at": rfc3339(t.expires_at)} for t in tokens],
        "agents": [{"principal": str(one.principal), "disabled": one.disabled} for one in agents],
    }
    lines = [words(found.enrolment, found.display), ""]
    lines += [f"certificate {c.fingerprint}, {in_words(c.not_after - now)} left" for c in certificates]
    lines += [f"token {t.jti} for {', '.join(t.audience)}, {in_words(t.expires_at - now)} left" for t in tokens]
    lines += [f"agent {one.principal}, {'stopped' if one.disabled else 'enabled'}" for one in agents]
    return Result(data=facts(found.enrolment, found.display) | alive, text="\n".join(lines))


@command(example="certauth signer user disable alice --reason 'left the facility'")
@click.argument("name")
@reason_option
@settings_option
@example_keys_option
def disable(name: str, reason: str, settings_file: Path, *, allow_example_keys: bool) -> Result:
    """Refuse NAME any new grant, revoke every certificate and token that is alive, and stop their agents.

    JSON: the members of 'user enroll'.
    """
    with facility(settings_file, allow_example_keys=allow_example_keys) as place:
        return disabled(place, person(place, name), reason=reason)


def disabled(place: Facility, found: EnrolledPrincipal, *, reason: str) -> Result:
    """Disable a person or machine, in one entry with the withdrawal of all that hangs on it."""
    now, by = system_clock(), acting()
    enrolment = replace(found.enrolment, disabled=True)
    principal = enrolment.principal
    row = EnrolmentRow(enrolment=enrolment, display=found.display, by=by, at=now, change=Change.STATE)
    rows = (row, *everything_with_agents(place, principal, reason=reason, at=now))
    terms = facts(enrolment, found.display)
    index = act(place, action="disable", principal=principal, reason=reason, rows=rows, terms=terms)
    more = look_again(place, rows, recorded=index)
    return Result(data=terms, text=f"{principal} is disabled, and everything issued until now is revoked.{more}")


@command(example="certauth signer user enable alice --reason 'back from leave'")
@click.argument("name")
@reason_option
@settings_option
@example_keys_option
def enable(name: str, reason: str, settings_file: Path, *, allow_example_keys: bool) -> Result:
    """Let NAME log in again. What was revoked stays revoked, and agents that were stopped stay stopped.

    JSON: the members of 'user enroll'.
    """
    with facility(settings_file, allow_example_keys=allow_example_keys) as place:
        return enabled(place, person(place, name), reason=reason)


def enabled(place: Facility, found: EnrolledPrincipal, *, reason: str) -> Result:
    """Enable a person or machine; ``UsageError`` (``erased``) for a person whose personal data were deleted."""
    enrolment = replace(found.enrolment, disabled=False)
    if not enrolment.logins:
        raise UsageError(
            "erased",
            f"the personal data of {enrolment.principal} were deleted; nobody can log in under this name",
            hint="enrol them under another name",
        )
    row = EnrolmentRow(enrolment=enrolment, display=found.display, by=acting(), at=system_clock(), change=Change.STATE)
    terms = facts(enrolment, found.display)
    act(place, action="enable", principal=enrolment.principal, reason=reason, rows=(row,), terms=terms)
    return Result(data=terms, text=f"{enrolment.principal} is enabled.")


@command(example="certauth signer user revoke alice --reason 'laptop stolen'")
@click.argument("name")
@click.option("--certificate", metavar="FINGERPRINT", help="Only this certificate.")
@click.option("--token", "jti", metavar="JTI", help="Only this token and everything derived from it.")
@reason_option
@settings_option
@example_keys_option
def revoke(
    name: str, certificate: str | None, jti: str | None, reason: str, settings_file: Path, *, allow_example_keys: bool
) -> Result:
    """Revoke every credential of NAME issued until now and stop their agents, or revoke a single credential.

    NAME can log in again at once.

    JSON: principal, kind, value.
    """
    if certificate and jti:
        raise click.UsageError("--certificate and --token exclude each other")
    with facility(settings_file, allow_example_keys=allow_example_keys) as place:
        principal = person(place, name).enrolment.principal
        return withdraw(place, principal, certificate=certificate, jti=jti, reason=reason)
