"""``certauth signer user applications | approve | deny``: people who have logged in and wait for an answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from certauth.cli.output import Result, command, table
from certauth.clock import rfc3339, system_clock
from certauth.enrolment import Enrolment, Login
from certauth.errors import UsageError
from certauth.names import Kind, Principal
from signer.changing import facts
from signer.cli.common import Facility, acting, example_keys_option, facility, reason_option, settings_option
from signer.cli.people import act, application_facts, check_free, login_of, words
from signer.cli.terms import terms_of, terms_options
from signer.cli.user import enrol, with_terms
from signer.disclosing import login_members
from signer.rows import ApplicationRow, ApplicationState

issuer_option = click.option("--issuer", help="The provider at which they logged in, by its URL or id, instead of NAME.")
subject_option = click.option("--subject", help="Their `sub` there.")


@command(example="certauth signer user applications")
@click.option(
    "--state",
    type=click.Choice([str(state) for state in ApplicationState]),
    default=str(ApplicationState.WAITING),
    show_default=True,
    help="Those in this state.",
)
@settings_option
@example_keys_option
def applications(state: str, settings_file: Path, *, allow_example_keys: bool) -> Result:
    """List who has logged in and waits to be enrolled, the longest waiting first; a thousand at most.

    Name and display are what the login says of itself. Decide by issuer and subject, or by an e-mail address: it is shown only
    where the provider has verified it.

    JSON: applications (name, issuer, subject, display, email, state, asked_at, decided_at, decided_by).
    """
    with facility(settings_file, allow_example_keys=allow_example_keys) as place:
        found = place.store.applications(ApplicationState(state))
    members = [application_facts(one) for one in found]
    columns = ("name", "issuer", "subject", "email", "display", "asked_at")
    rows = [[one[column] or "" for column in columns] for one in members]
    return Result(data={"applications": members}, text=table(columns, rows))


@command(example="certauth signer user approve grace --group beamline-7 --reason 'proposal 2026-118'")
@click.argument("name", required=False)
@issuer_option
@subject_option
@click.option("--as", "other_name", metavar="NAME", help="Enrol them under this name instead of the one they asked for.")
@terms_options
@reason_option
@settings_option
@example_keys_option
def approve(
    name: str | None,
    issuer: str | None,
    subject: str | None,
    other_name: str | None,
    reason: str,
    settings_file: Path,
    *,
    allow_example_keys: bool,
    **given: Any,
) -> Result:
    """Enrol whoever asked for NAME, or for a login, with the given groups and rights. Also somebody denied before.

    JSON: the members of 'user enroll'.
    """
    terms = terms_of(given)
    with facility(settings_file, allow_example_keys=allow_example_keys) as place:
        application = _application(place, name, issuer, subject)
        principal = Principal.parse(application.name)
        if other_name is not None:
            principal = Principal.make(place.authority.domain, Kind.USER, other_name)
        elif str(principal) in place.settings.admins:
            raise UsageError("name-reserved", f"{principal} is an administrator", hint="say --as NAME if that is meant")
        if place.store.enrolled_principal(principal) is not None:
            raise UsageError("name-taken", f"{principal} is somebody else", hint="choose another name with --as NAME")
        check_free(place, application.login)
        enrolment = with_terms(Enrolment(principal=principal, logins=(application.login,)), terms)
        enrol(place, enrolment, application.display, reason=reason, action="approve")
    text = f"{principal} is enrolled.\n\n{words(enrolment, application.display)}"
    return Result(data=facts(enrolment, application.display), text=text)


@command(example="certauth signer user deny grace --reason 'not a member of the proposal'")
@click.argument("name", required=False)
@issuer_option
@subject_option
@reason_option
@settings_option
@example_keys_option
def deny(
    name: str | None, issuer: str | None, subject: str | None, reason: str, settings_file: Path, *, allow_example_keys: bool
) -> Result:
    """Turn down whoever asked for NAME, or for a login. They are told so when they log in again; the reason is not shown.

    JSON: name, issuer, subject, display, email, state, asked_at, decided_at, decided_by.
    """
    with facility(settings_file, allow_example_keys=allow_example_keys) as place:
        application = _application(place, name, issuer, subject)
        at, by = system_clock(), acting()
        denied = replace(application, state=ApplicationState.DENIED, decided_at=at, decided_by=by)
        terms = {"logins": login_members([application.login])}
        act(place, action="deny", principal=Principal.parse(application.name), reason=reason, rows=(denied,), terms=terms)
    return Result(data=application_facts(denied), text=f"{application.name} is turned down.")


def _application(place: Facility, name: str | None, issuer: str | None, subject: str | None) -> ApplicationRow:
    """The one that is meant; ``UsageError`` (``no-application``, ``application-ambiguous``)."""
    open_states = (ApplicationState.WAITING, ApplicationState.DENIED)
    if subject is not None:
        login: Login = login_of(place, issuer, subject)
        one = place.store.application(login)
        found = [one] if one is not None and one.state in open_states else []
    elif name is not None:
        wanted = {str(Principal.make(place.authority.domain, kind, name)) for kind in (Kind.USER, Kind.AGENT)}
        found = [one for state in open_states for one in place.store.applications(state) if one.name in wanted]
    else:
        raise click.UsageError("give NAME, or --issuer and --subject")
    if not found:
        raise UsageError("no-application", "nobody waits under this name or login", hint="certauth signer user applications")
    if len(found) > 1:
        raise UsageError(
            "application-ambiguous",
            f"{len(found)} logins ask for this name, the first since {rfc3339(found[0].asked_at)}",
            hint="say which with --issuer and --subject",
        )
    return found[0]
