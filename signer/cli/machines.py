"""``certauth signer service enroll | code``: services, hosts and agents of the facility."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import click

from certauth.cli.output import Result, command
from certauth.clock import in_words, parse_duration, system_clock
from certauth.encoding import Json
from certauth.enrolment import Enrolment, Login, Terms, held_rights
from certauth.errors import UsageError
from certauth.names import Kind, Principal, label
from signer import servers
from signer.changing import facts
from signer.cli.common import Facility, acting, example_keys_option, facility, reason_option, settings_option
from signer.cli.people import MACHINES, act, words
from signer.cli.secret import HandedOut, output_option
from signer.cli.terms import terms_of, terms_options
from signer.cli.user import with_terms
from signer.client_keys import MAX_KEYS, ClientKey, read_client_key
from signer.codes import MACHINE_CODE_MAX, digest_of
from signer.power import BOUNDS, Network, Power, check_power, least_power
from signer.rows import Change, ClientKeyRow, CodeRow, EnrolledPrincipal, EnrolmentRow, Purpose, StoreRow

_MAX_PLACES = 64
kind_option = click.option(
    "--kind",
    type=click.Choice([str(kind) for kind in Kind if kind in MACHINES]),
    default=str(Kind.SERVICE),
    show_default=True,
    help="What it is.",
)
key_option = click.option(
    "--key",
    "key_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Its public key, PEM or JWK, with which it signs assertions.",
)
code_period_option = click.option(
    "--code-for", "code_period", default="1d", show_default=True, help="How long the code can be used; at most 7d."
)


@command(
    example="certauth signer service enroll ingest --host ingest.als.example --network 192.0.2.0/28 \\\n"
    "    --right data:write:/raw/ --key ingest.pub --reason 'beamline 7 ingest'"
)
@click.argument("name")
@kind_option
@click.option("--host", "hosts", multiple=True, help="A DNS name or IP address it is reached under; its certificate names it.")
@key_option
@click.option("--code", "with_code", is_flag=True, help="Make a one-time code with which it gets its first certificate.")
@code_period_option
@output_option
@click.option("--network", "networks", multiple=True, metavar="CIDR", help="Where it asks from; default: anywhere.")
@click.option("--power", type=click.Choice([str(power) for power in Power]), help="Default: the least its rights need.")
@click.option("--for", "period", help="How long it is enrolled; default: as long as its power allows.")
@terms_options
@click.option("--display", default="", help="What it is, for people to read.")
@reason_option
@settings_option
@example_keys_option
def enroll(
    name: str,
    kind: str,
    hosts: tuple[str, ...],
    key_file: Path | None,
    code_period: str,
    output: Path | None,
    networks: tuple[str, ...],
    power: str | None,
    period: str | None,
    display: str,
    reason: str,
    settings_file: Path,
    *,
    with_code: bool,
    allow_example_keys: bool,
    **given: Any,
) -> Result:
    """Enrol the service, host or agent NAME, or replace what it is enrolled for and begin its time anew.

    The more it may do, the shorter it is enrolled and the fewer networks it may ask from: 60 days from anywhere for reading
    (low), 14 days from up to 8 networks for anything else (medium), 2 days from up to 2 small ones for administrators (high).

    JSON: the members of 'user enroll', power, kid, code, output.
    """
    terms, lifetime = terms_of(given), code_lifetime(code_period) if with_code else None
    if output is not None and not with_code:
        raise click.UsageError("--output is for the code: say --code")
    key = None if key_file is None else read_client_key(key_file.read_bytes(), allow_example_keys=allow_example_keys)
    with facility(settings_file, allow_example_keys=allow_example_keys) as place:
        now = system_clock()
        principal = machine_principal(place, kind, name)
        present = place.store.enrolled_principal(principal)
        check_not_owned(present)
        login = Login(str(principal), str(principal))
        bare = present.enrolment if present else Enrolment(principal=principal, logins=(login,))
        enrolment = with_terms(replace(bare, hosts=_hosts(hosts), networks=_networks(networks)), terms)
        level, span = _bounded(place, enrolment, power, period)
        enrolment = replace(enrolment, expires_at=now + span)
        row = EnrolmentRow(
            enrolment=enrolment, display=display, by=acting(), at=now, change=Change.CHANGED if present else Change.NEW
        )
        rows: tuple[StoreRow, ...] = (row,)
        if key is not None and key.jwk not in place.store.client_keys(principal):
            rows += (key_row(place, principal, key, at=now),)
        code = _record(place, enrolment, display, rows=rows, reason=reason, lifetime=lifetime, output=output, at=now)
    data = facts(enrolment, display) | {"power": str(level), "kid": None if key is None else key.kid} | code.members()
    lines = [f"{principal} is enrolled for {in_words(span)}, with {level} power.", "", words(enrolment, display)]
    lines += [f"key {key.kid}"] if key else []
    lines += code.lines()
    return Result(data=data, text="\n".join(lines))


class _NoCode:
    """What is said where no code was asked for."""

    def members(self) -> dict[str, Json]:
        return {"code": None, "output": None}

    def lines(self) -> list[str]:
        return []


def _record(
    place: Facility,
    enrolment: Enrolment,
    display: str,
    *,
    rows: tuple[StoreRow, ...],
    reason: str,
    lifetime: timedelta | None,
    output: Path | None,
    at: datetime,
) -> HandedOut | _NoCode:
    """One entry for all of it; a code that could not be recorded is not left lying about."""
    changing = any(isinstance(row, EnrolmentRow) and row.change is Change.CHANGED for row in rows)
    enrolling = any(isinstance(row, EnrolmentRow) for row in rows)
    action = "change" if changing else "enroll" if enrolling else "code"
    terms = facts(enrolment, display) if enrolling else None
    if lifetime is None:
        act(place, action=action, principal=enrolment.principal, reason=reason, rows=rows, terms=terms)
        return _NoCode()
    handed = HandedOut(output)
    code = CodeRow(
        digest=digest_of(handed.code),
        purpose=Purpose.MACHINE,
        principal=enrolment.principal,
        expires_at=at + lifetime,
        by=acting(),
        at=at,
    )
    with handed.kept_if_recorded():
        act(place, action=action, principal=enrolment.principal, reason=reason, rows=(*rows, code), terms=terms)
    return handed


def machine_principal(place: Facility, kind: str, name: str) -> Principal:
    """The principal of a machine; ``RequestError`` (``bad-name``)."""
    return Principal.make(place.authority.domain, Kind(kind), label(name, f"a {kind}"))


def machine(place: Facility, kind: str, name: str) -> EnrolledPrincipal:
    """The machine enrolled under ``name``; ``UsageError`` (``not-enrolled``)."""
    principal = Principal.make(place.authority.domain, Kind(kind), name)
    found = place.store.enrolled_principal(principal)
    if found is None:
        raise UsageError("not-enrolled", f"{principal} is not enrolled", hint="certauth signer service list")
    return found


def key_row(place: Facility, principal: Principal, key: ClientKey, *, at: datetime) -> ClientKeyRow:
    """A further key of a machine; ``UsageError`` (``too-many-keys``)."""
    if len(place.store.client_keys(principal)) >= MAX_KEYS:
        raise UsageError(
            "too-many-keys", f"{principal} has {MAX_KEYS} keys", hint="remove one: certauth signer service key remove"
        )
    return ClientKeyRow(principal=principal, kid=key.kid, jwk=key.jwk, by=acting(), at=at)


def code_lifetime(text: str) -> timedelta:
    """How long a machine's code can be used; ``UsageError`` (``bad-duration``)."""
    period = parse_duration(text)
    if not timedelta(0) < period <= MACHINE_CODE_MAX:
        raise UsageError("bad-duration", f"a code is not good for {text}", hint=f"at most {MACHINE_CODE_MAX.days}d")
    return period


def check_not_owned(present: EnrolledPrincipal | None) -> None:
    """Raise ``UsageError`` (``owned-agent``) for the agent of a person, who alone decides about it."""
    if present is not None and present.enrolment.owner is not None:
        raise UsageError(
            "owned-agent",
            f"{present.enrolment.principal} works for {present.enrolment.owner}, who alone decides what it may do",
            hint="it can be ended: certauth signer service disable --kind agent",
        )


def _bounded(place: Facility, enrolment: Enrolment, power: str | None, period: str | None) -> tuple[Power, timedelta]:
    """Power and time of an enrolment within the table of ``signer.power``."""
    entitlements = [one for grant in place.settings.grant for one in grant.entitlements()]
    rights = held_rights(enrolment, Terms(), entitlements)
    least = least_power(rights, is_admin=str(enrolment.principal) in place.settings.admins)
    level = least if power is None else Power.parse(power)
    span = BOUNDS[level].longest if period is None else parse_duration(period)
    check_power(level, least=least, lifetime=span, networks=enrolment.networks)
    return level, span


def _hosts(hosts: tuple[str, ...]) -> tuple[str, ...]:
    """DNS names and addresses in their one spelling; ``RequestError`` (``bad-name``) for what is neither."""
    if len(hosts) > _MAX_PLACES:
        raise UsageError("bad-name", f"{len(hosts)} hosts are too many", hint=f"at most {_MAX_PLACES}")
    found = servers.named("hosts", hosts)
    return tuple(dict.fromkeys((*found.dns, *map(str, found.addresses))))


def _networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    if len(texts) > _MAX_PLACES:
        raise UsageError("bad-network", f"{len(texts)} networks are too many", hint=f"at most {_MAX_PLACES}")
    try:
        return tuple(dict.fromkeys(ip_network(text) for text in texts))
    except ValueError as error:
        raise UsageError(
            "bad-network", f"{str(error)[:120]}", hint="write 192.0.2.0/28 or 2001:db8::/56, without bits of a host"
        ) from error


@command(example="certauth signer service code ingest --output ingest.code --reason 'the first one was lost'")
@click.argument("name")
@kind_option
@code_period_option
@output_option
@reason_option
@settings_option
@example_keys_option
def code(
    name: str,
    kind: str,
    code_period: str,
    output: Path | None,
    reason: str,
    settings_file: Path,
    *,
    allow_example_keys: bool,
) -> Result:
    """Make another one-time code for NAME, which is enrolled. It is shown now and never again.

    JSON: principal, code, output, expires_in.
    """
    lifetime = code_lifetime(code_period)
    with facility(settings_file, allow_example_keys=allow_example_keys) as place:
        found = machine(place, kind, name)
        check_not_owned(found)
        made = _record(
            place, found.enrolment, found.display, rows=(), reason=reason, lifetime=lifetime, output=output, at=system_clock()
        )
    data: dict[str, object] = {"principal": str(found.enrolment.principal), "expires_in": int(lifetime.total_seconds())}
    return Result(data=data | made.members(), text="\n".join(made.lines()))
