"""``certauth signer user invite | invitations | withdraw-invite``: letting somebody enrol themselves, once."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from certauth.cli.output import Result, command, table
from certauth.clock import in_words, parse_duration, rfc3339, system_clock
from certauth.encoding import Json
from certauth.errors import UsageError
from certauth.names import Kind, Principal
from signer.changing import given as given_facts
from signer.cli.common import acting, example_keys_option, facility, reason_option, settings_option
from signer.cli.people import act, issuer_url
from signer.cli.secret import HandedOut, output_option
from signer.cli.terms import email as email_address
from signer.cli.terms import terms_of, terms_options
from signer.codes import INVITATION_MAX, digest_of
from signer.disclosing import invited
from signer.reading import CodeState, StoredCode
from signer.rows import CodeRow, CodeWithdrawn, Purpose

_ID = 16
"""Digits of a code's digest that name an invitation: enough to tell them apart, and no help in finding the code."""


@command(
    example="certauth signer user invite --name grace --email grace@campus.example --group beamline-7 \\\n"
    "    --output grace.invite --reason 'proposal 2026-118'"
)
@click.option("--name", help="Under which name they will be enrolled; default: as the rules of their provider have it.")
@click.option("--email", help="Only for somebody whose provider says that this address is theirs.")
@click.option("--issuer", help="Only for logins at this identity provider, by its URL or id.")
@terms_options
@click.option("--for", "period", default="7d", show_default=True, help="How long it can be used; at most 30d.")
@output_option
@reason_option
@settings_option
@example_keys_option
def invite(
    name: str | None,
    email: str | None,
    issuer: str | None,
    period: str,
    output: Path | None,
    reason: str,
    settings_file: Path,
    *,
    allow_example_keys: bool,
    **given: Any,
) -> Result:
    """Make an invitation: a code with which one person, once, is enrolled by their first login.

    They log in with: certauth login --invite FILE. Whoever has the code can use it, so bind it to an address or a provider
    where you can. It is shown now and never again.

    JSON: id, code, output, principal, email, issuer, expires_at, groups, roles, projects, rights, assurance, max_lifetime.
    """
    terms, lifetime = terms_of(given), _period(period)
    address = email_address(email)
    with facility(settings_file, allow_example_keys=allow_example_keys) as place:
        domain, now = place.authority.domain, system_clock()
        principal = None if name is None else Principal.make(domain, Kind.USER, name)
        if principal is not None and place.store.enrolled_principal(principal) is not None:
            raise UsageError("name-taken", f"{principal} is enrolled already", hint="choose another name")
        url = None if issuer is None else issuer_url(place, issuer)
        handed = HandedOut(output)
        row = CodeRow(
            digest=digest_of(handed.code),
            purpose=Purpose.INVITE,
            principal=principal,
            email=address,
            issuer=url,
            terms=terms,
            expires_at=now + lifetime,
            by=acting(),
            at=now,
        )
        facts = given_facts(terms)
        facts |= {"email": address, "issuer": url, "expires_at": rfc3339(row.expires_at)}
        known_as = principal or invited(domain, row.digest)
        with handed.kept_if_recorded():
            act(place, action="invite", principal=known_as, reason=reason, rows=(row,), terms=facts)
    data: dict[str, object] = {"id": row.digest[:_ID], "principal": None if principal is None else str(principal)}
    data |= facts | handed.members()
    text = f"Invitation {row.digest[:_ID]}, good for {in_words(lifetime)}: {handed.lines()[0]}"
    return Result(data=data, text=text)


def _period(text: str) -> timedelta:
    period = parse_duration(text)
    if not timedelta(0) < period <= INVITATION_MAX:
        raise UsageError("bad-duration", f"an invitation is not good for {text}", hint=f"at most {INVITATION_MAX.days}d")
    return period


@command(example="certauth signer user invitations")
@click.option("--all", "everything", is_flag=True, help="Also those that were used or withdrawn, or have run out.")
@settings_option
@example_keys_option
def invitations(settings_file: Path, *, everything: bool, allow_example_keys: bool) -> Result:
    """List the invitations that can be used, the newest first; of all invitations, the last thousand codes.

    JSON: invitations (id, state, principal, email, issuer, made_by, expires_at, used_by, groups, roles, projects, rights,
    assurance, max_lifetime).
    """
    now = system_clock()
    with facility(settings_file, allow_example_keys=allow_example_keys) as place:
        codes = [code for code in place.store.codes() if code.row.purpose is Purpose.INVITE]
    found = [code for code in codes if everything or code.state(now) is CodeState.OPEN]
    rows = [
        (
            code.row.digest[:_ID],
            code.state(now),
            code.row.principal.id if code.row.principal else "",
            code.row.email or "",
            code.row.issuer or "",
            rfc3339(code.row.expires_at),
        )
        for code in found
    ]
    data = {"invitations": [_facts(code, code.state(now)) for code in found]}
    return Result(data=data, text=table(("id", "state", "name", "email", "issuer", "expires"), rows))


def _facts(code: StoredCode, state: CodeState) -> dict[str, Json]:
    row = code.row
    facts = given_facts(row.terms)
    facts |= {
        "id": row.digest[:_ID],
        "state": str(state),
        "principal": None if row.principal is None else str(row.principal),
        "email": row.email,
        "issuer": row.issuer,
        "made_by": row.by,
        "expires_at": rfc3339(row.expires_at),
        "used_by": code.used_by,
    }
    return facts


@command(example="certauth signer user withdraw-invite 3f6c0a52b1d94e77 --reason 'sent to the wrong address'")
@click.argument("invitation", metavar="ID")
@reason_option
@settings_option
@example_keys_option
def withdraw_invite(invitation: str, reason: str, settings_file: Path, *, allow_example_keys: bool) -> Result:
    """Withdraw the invitation ID before it is used.

    JSON: id, state.
    """
    now = system_clock()
    with facility(settings_file, allow_example_keys=allow_example_keys) as place:
        domain = place.authority.domain
        found = [
            code for code in place.store.codes() if code.row.purpose is Purpose.INVITE and code.row.digest[:_ID] == invitation
        ]
        if not found or found[0].state(now) is not CodeState.OPEN:
            raise _not_open(invitation)
        row = found[0].row
        withdrawal = CodeWithdrawn(digest=row.digest, by=acting(), at=now)
        principal = row.principal or invited(domain, row.digest)
        act(place, action="withdraw-invite", principal=principal, reason=reason, rows=(withdrawal,), terms=None)
    return Result(data={"id": invitation, "state": "withdrawn"}, text=f"Invitation {invitation} is withdrawn.")


def _not_open(invitation: str) -> UsageError:
    return UsageError(
        "invite-unknown", f"there is no open invitation {invitation[:40]!r}", hint="certauth signer user invitations --all"
    )
