"""``certauth signer user link | unlink | delete-personal-data``: which logins lead to a person, and that one day none does."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import click

from certauth.cli.output import Result, command, wants_json
from certauth.clock import system_clock
from certauth.errors import StoreError, UsageError
from certauth.names import Principal
from signer import database
from signer.admitting import settled
from signer.changing import facts
from signer.cli.common import acting, example_keys_option, facility, reason_option, settings_option
from signer.cli.people import act, check_free, login_of, person, words
from signer.cli.withdrawing import everything_with_agents, look_again
from signer.disclosing import login_members
from signer.ending import ending_all
from signer.linking import MAX_LOGINS
from signer.rows import Erasure, LoginRemoved, LoginRow, StoreRow
from signer.store import Store


@command(example="certauth signer user link alice --issuer https://orcid.example --subject 0000-0002 --reason 'ticket 4711'")
@click.argument("name")
@click.option("--issuer", help="The identity provider, by its URL or id; default: the only one configured.")
@click.option("--subject", required=True, help="The person's `sub` there.")
@reason_option
@settings_option
@example_keys_option
def link(name: str, issuer: str | None, subject: str, reason: str, settings_file: Path, *, allow_example_keys: bool) -> Result:
    """Let another login lead to NAME. Make sure that it is theirs: whoever has it is NAME from now on.

    JSON: the members of 'user enroll'.
    """
    with facility(settings_file, allow_example_keys=allow_example_keys) as place:
        found = person(place, name)
        login = login_of(place, issuer, subject)
        check_free(place, login)
        if not found.enrolment.logins:
            raise UsageError("erased", f"the personal data of {name} were deleted", hint="enrol them under another name")
        if len(found.enrolment.logins) >= MAX_LOGINS:
            raise UsageError(
                "too-many-linked-logins", f"{name} has {MAX_LOGINS} logins", hint="remove one: certauth signer user unlink"
            )
        enrolment = replace(found.enrolment, logins=(*found.enrolment.logins, login))
        principal, at, by = enrolment.principal, system_clock(), acting()
        rows: tuple[StoreRow, ...] = (LoginRow(principal=principal, login=login, by=by, at=at),)
        rows += settled(place.store.application(login), by=by, at=at)
        terms = {"logins": login_members([login])}
        act(place, action="link", principal=principal, reason=reason, rows=rows, terms=terms)
    return Result(data=facts(enrolment, found.display), text=words(enrolment, found.display))


@command(example="certauth signer user unlink alice --subject 0000-0002 --issuer orcid --reason 'account there was lost'")
@click.argument("name")
@click.option("--issuer", help="The identity provider, by its URL or id; default: the only one configured.")
@click.option("--subject", required=True, help="The person's `sub` there.")
@reason_option
@settings_option
@example_keys_option
def unlink(
    name: str, issuer: str | None, subject: str, reason: str, settings_file: Path, *, allow_example_keys: bool
) -> Result:
    """Take a login from NAME, who must have another one; revoke everything issued to NAME until now, and stop their agents.

    JSON: the members of 'user enroll'.
    """
    with facility(settings_file, allow_example_keys=allow_example_keys) as place:
        found = person(place, name)
        # A provider that is no longer configured can still be taken away.
        theirs = [one for one in found.enrolment.logins if one.subject == subject and issuer in (None, one.issuer)]
        login = theirs[0] if len(theirs) == 1 else login_of(place, issuer, subject)
        if login not in found.enrolment.logins:
            raise UsageError("not-linked", f"this login does not lead to {name}", hint=f"certauth signer user show {name}")
        left = tuple(one for one in found.enrolment.logins if one != login)
        if not left:
            raise UsageError(
                "last-login", f"{name} has no other login", hint="link another one first, or disable them: user disable"
            )
        enrolment = replace(found.enrolment, logins=left)
        principal = enrolment.principal
        # Which of their credentials came from this login is not known to every door, so none stays; nor any agent, for whoever
        # had the login may have made it.
        everything = everything_with_agents(place, principal, reason=reason, at=system_clock())
        rows = (LoginRemoved(principal=principal, login=login), *everything)
        terms = {"logins": login_members([login])}
        index = act(place, action="unlink", principal=principal, reason=reason, rows=rows, terms=terms)
        more = look_again(place, rows, recorded=index)
    return Result(data=facts(enrolment, found.display), text=words(enrolment, found.display) + more)


@command(example="certauth signer user delete-personal-data alice --reason 'request 2026-31'")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask; there is no way back.")
@reason_option
@settings_option
@example_keys_option
def delete_personal_data(name: str, reason: str, settings_file: Path, *, yes: bool, allow_example_keys: bool) -> Result:
    """Delete who NAME is: display name, logins, applications, addresses, and what the log discloses about them.

    NAME must be disabled. The log stays complete and goes on verifying, the name stays taken, and the reason stays readable.
    Backups are yours to delete. Their agents end with them. While a program reads an older state of the database, such as a
    backup, the deleted text cannot be overwritten everywhere: that is said, and the command is to be run again.

    JSON: principal, agents.
    """
    with facility(settings_file, allow_example_keys=allow_example_keys) as place:
        found = person(place, name)
        principal = found.enrolment.principal
        if not found.enrolment.disabled:
            raise UsageError("not-disabled", f"{name} is enabled", hint=f"first: certauth signer user disable {name}")
        agents = place.store.owned_by(principal)
        if not yes:
            _confirm(f"Delete the personal data of {principal} and of {len(agents)} agents? This cannot be undone.")
        at, by = system_clock(), acting()
        ended = ending_all(place.store, agents, reason=reason, by=by, at=at)
        erased = [Erasure(principal=one, by=by, at=at) for one in (*(a.enrolment.principal for a in agents), principal)]
        act(place, action="delete-personal-data", principal=principal, reason=reason, rows=(*ended, *erased), terms=None)
    with facility(settings_file, allow_example_keys=allow_example_keys) as place:
        _empty_wal(place.store, principal)
    data = {"principal": str(principal), "agents": [str(agent.enrolment.principal) for agent in agents]}
    return Result(data=data, text=f"The personal data of {principal} are deleted. The name stays taken.")


def _empty_wal(store: Store, principal: Principal) -> None:
    """Empty the write-ahead log, which held what was deleted; ``StoreError`` (``erasure-incomplete``) if it cannot be."""
    engine = database.writing_engine(store.path, store.place.database)
    with database.turn(store.path), engine.connect() as connection:
        emptied = database.flush_wal(connection)
    if not emptied:
        raise StoreError(
            "erasure-incomplete",
            f"the personal data of {principal} are deleted, but still in the write-ahead log: somebody reads an older state",
            hint="run this again once that program, a backup perhaps, is done",
        )


def _confirm(question: str) -> None:
    if wants_json() or not _at_a_terminal():
        raise UsageError("not-confirmed", "nobody is there to confirm it", hint="say --yes if you are sure")
    click.confirm(question, abort=True, err=True)


def _at_a_terminal() -> bool:
    return sys.stdin.isatty()
