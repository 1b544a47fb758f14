"""Rows that replace or remove, rather than add: enrolments, codes, applications, logins, and what is deleted on request.

Each runs inside the transaction of the batch that records it. A row that finds nothing to change is a ``Conflict``: the world
was another when it was decided.
"""

from __future__ import annotations

from typing import assert_never

from sqlalchemy import ColumnElement, Connection, Delete, Table, Update, delete, func, insert, or_, select, update

from certauth.enrolment import Login
from signer.disclosing import invited, logins_told, tells_of
from signer.key_index import KeyIndexRow
from signer.rows import (
    ApplicationRow,
    ApplicationState,
    Change,
    ClientKeyRemoved,
    CodeUsed,
    CodeWithdrawn,
    EnrolmentRow,
    Erasure,
    LoginRemoved,
)
from signer.tables import APPLICATION, CLIENT_KEY, CODE, KEY_INDEX, LOG_DISCLOSURE, LOG_ENTRY, LOGIN, META, PRINCIPAL


class Conflict(Exception):
    """A row contradicts one that is there; only the submission it belongs to is at fault."""


def enrol(connection: Connection, row: EnrolmentRow) -> None:
    """Insert a principal with their logins, or change what they have; ``Conflict`` if they are not there to be changed."""
    columns = row.columns()
    if row.change is Change.NEW:
        connection.execute(insert(PRINCIPAL), columns)
        if logins := [one.columns() for one in row.logins()]:
            connection.execute(insert(LOGIN), logins)
        return
    changed = update(PRINCIPAL).where(PRINCIPAL.c.principal == columns["principal"])
    _one(connection, changed.values(columns), f"{columns['principal']} is not enrolled")


def change(
    connection: Connection, row: CodeUsed | CodeWithdrawn | ApplicationRow | LoginRemoved | ClientKeyRemoved | Erasure
) -> None:
    """What replaces or removes, rather than adds."""
    match row:
        case CodeUsed() | CodeWithdrawn():
            unused = update(CODE).where(CODE.c.digest == row.digest, CODE.c.used_at.is_(None))
            _one(connection, unused.values(row.columns()), "the code was used or withdrawn meanwhile")
        case ApplicationRow():
            replaced = delete(APPLICATION).where(*_is_login(APPLICATION, row.login))
            if row.state is ApplicationState.WAITING:  # what was decided meanwhile stays: the insertion conflicts with it
                replaced = replaced.where(APPLICATION.c.state == str(ApplicationState.WAITING))
            connection.execute(replaced)
            connection.execute(insert(APPLICATION), row.columns())
        case LoginRemoved():
            found = delete(LOGIN).where(*_is_login(LOGIN, row.login), LOGIN.c.principal == str(row.principal))
            _one(connection, found, f"the login does not lead to {row.principal}")
        case ClientKeyRemoved():
            key = delete(CLIENT_KEY).where(CLIENT_KEY.c.principal == str(row.principal), CLIENT_KEY.c.kid == row.kid)
            _one(connection, key, f"{row.principal} has no such key")
        case Erasure():
            _erase(connection, row)
        case _:
            assert_never(row)


def replace_keys(connection: Connection, row: KeyIndexRow) -> None:
    """Put another index of the signing keys in force; ``Conflict`` if they are not as they were when it was decided."""
    if row.before is None:
        connection.execute(insert(META), {"name": KEY_INDEX, "value": row.after})
        return
    index = update(META).where(META.c.name == KEY_INDEX, META.c.value == row.before)
    _one(connection, index.values({"value": row.after}), "the keys were changed meanwhile")


def _one(connection: Connection, statement: Update | Delete, otherwise: str) -> None:
    """Change exactly one row, or raise ``Conflict``."""
    if connection.execute(statement).rowcount != 1:
        raise Conflict(otherwise)


def _is_login(table: Table, login: Login) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return table.c.issuer == login.issuer, table.c.subject == login.subject


def _erase(connection: Connection, row: Erasure) -> None:
    """Remove what identifies the person behind a principal; entries and proofs stay, disclosures go."""
    principal = str(row.principal)
    erased = update(PRINCIPAL).where(PRINCIPAL.c.principal == principal, PRINCIPAL.c.disabled_at.is_not(None))
    _one(connection, erased.values({"display": ""}), f"{principal} is not enrolled, or not disabled")
    found = connection.execute(select(LOGIN.c.issuer, LOGIN.c.subject).where(LOGIN.c.principal == principal))
    logins = frozenset([Login(issuer, subject) for issuer, subject in found]) | _former(connection, principal)
    applications = [
        application
        for login in logins
        for application in connection.execute(select(APPLICATION).where(*_is_login(APPLICATION, login))).mappings()
    ]
    invitations = _erase_codes(connection, row, {application["email"].lower() for application in applications})
    # What was said about them before they had this name: of refused logins, under the name they applied for, of invitations.
    _erase_disclosures(connection, {principal, *invitations}, {one["name"] for one in applications}, logins)
    for login in logins:
        connection.execute(delete(APPLICATION).where(*_is_login(APPLICATION, login)))
    connection.execute(delete(LOGIN).where(LOGIN.c.principal == principal))
    connection.execute(delete(CLIENT_KEY).where(CLIENT_KEY.c.principal == principal))


def _former(connection: Connection, principal: str) -> frozenset[Login]:
    """The logins that led to them once, as the log tells of acts on them, but for those that lead to somebody else now."""
    acts = (
        select(LOG_DISCLOSURE, LOG_ENTRY.c.body)
        .join(LOG_ENTRY, LOG_ENTRY.c.seq == LOG_DISCLOSURE.c.seq)
        .where(LOG_DISCLOSURE.c.principal == principal)
    )
    told = [
        logins_told(digest=found["digest"], disclosure=found["disclosure"], entry=found["body"])
        for found in connection.execute(acts).mappings()
    ]
    others = select(LOGIN.c.principal).where(LOGIN.c.principal != principal)
    return frozenset(
        login
        for login in frozenset().union(*told)
        if connection.execute(others.where(*_is_login(LOGIN, login))).first() is None
    )


def _erase_codes(connection: Connection, row: Erasure, addresses: set[str]) -> set[str]:
    """Take the person's addresses out of all codes, and withdraw the open ones; as whom the log knows their invitations."""
    theirs = or_(CODE.c.principal == str(row.principal), CODE.c.used_by == str(row.principal))
    codes = list(connection.execute(select(CODE.c.digest, CODE.c.email).where(theirs)))
    addresses = {*addresses, *(email.lower() for _, email in codes if email)} - {""}
    of_address = list(connection.execute(select(CODE.c.digest).where(func.lower(CODE.c.email).in_(addresses))).scalars())
    digests = [*(digest for digest, _ in codes), *of_address]
    withdrawal = CodeWithdrawn(digest="", by=row.by, at=row.at)
    connection.execute(update(CODE).where(CODE.c.digest.in_(digests), CODE.c.used_at.is_(None)).values(withdrawal.columns()))
    connection.execute(update(CODE).where(CODE.c.digest.in_(digests)).values({"email": None}))
    return {str(invited(row.principal.domain, digest)) for digest in digests}


def _erase_disclosures(connection: Connection, own: set[str], names: set[str], logins: frozenset[Login]) -> None:
    """Delete what the log discloses of the person: all said of their ``own`` principals, elsewhere what tells of a login."""
    connection.execute(delete(LOG_DISCLOSURE).where(LOG_DISCLOSURE.c.principal.in_(own)))
    perhaps = (
        select(LOG_DISCLOSURE, LOG_ENTRY.c.body)
        .join(LOG_ENTRY, LOG_ENTRY.c.seq == LOG_DISCLOSURE.c.seq)
        .where(or_(LOG_DISCLOSURE.c.principal.is_(None), LOG_DISCLOSURE.c.principal.in_(names)))
    )
    gone = [
        (found["seq"], found["digest"])
        for found in connection.execute(perhaps).mappings()
        if tells_of(logins, digest=found["digest"], disclosure=found["disclosure"], entry=found["body"])
    ]
    for seq, digest in gone:
        connection.execute(delete(LOG_DISCLOSURE).where(LOG_DISCLOSURE.c.seq == seq, LOG_DISCLOSURE.c.digest == digest))
