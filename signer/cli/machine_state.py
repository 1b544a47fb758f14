"""``certauth signer service list | show | disable | enable``: how the facility's machines stand."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import click

from certauth.cli.output import Result, command, table
from certauth.clock import rfc3339, system_clock
from certauth.enrolment import Enrolment
from signer.changing import facts
from signer.cli.common import example_keys_option, facility, reason_option, settings_option
from signer.cli.machines import check_not_owned, kind_option, machine
from signer.cli.people import MACHINES, everybody
from signer.cli.user import disabled, enabled, shown
from signer.rows import EnrolledPrincipal


@command(name="list", example="certauth signer service list")
@settings_option
@example_keys_option
def list_(settings_file: Path, *, allow_example_keys: bool) -> Result:
    """List the services, hosts and agents that are enrolled, people's own agents included.

    JSON: machines, each with the members of 'user enroll'.
    """
    now = system_clock()
    with facility(settings_file, allow_example_keys=allow_example_keys) as place:
        found = list(everybody(place.store, MACHINES))
    rows = [
        (one.enrolment.principal.kind, one.enrolment.principal.id, _state(one.enrolment, now), _until(one), one.display)
        for one in found
    ]
    data = {"machines": [facts(one.enrolment, one.display) for one in found]}
    return Result(data=data, text=table(("kind", "name", "state", "until", "display"), rows))


def _state(enrolment: Enrolment, now: datetime) -> str:
    if enrolment.disabled:
        return "disabled"
    return "ended" if enrolment.expires_at is not None and enrolment.expires_at <= now else "enabled"


def _until(one: EnrolledPrincipal) -> str:
    return rfc3339(one.enrolment.expires_at) if one.enrolment.expires_at else ""


@command(example="certauth signer service show ingest")
@click.argument("name")
@kind_option
@settings_option
@example_keys_option
def show(name: str, kind: str, settings_file: Path, *, allow_example_keys: bool) -> Result:
    """Show one machine: what it is enrolled for, its keys, and which credentials of it are alive.

    JSON: the members of 'user show', keys.
    """
    with facility(settings_file, allow_example_keys=allow_example_keys) as place:
        found = machine(place, kind, name)
        result = shown(place, found)
        kids = [json.loads(jwk)["kid"] for jwk in place.store.client_keys(found.enrolment.principal)]
    return Result(data={**result.data, "keys": kids}, text="\n".join([result.text, *(f"key {kid}" for kid in kids)]))


@command(example="certauth signer service disable ingest --reason 'replaced'")
@click.argument("name")
@kind_option
@reason_option
@settings_option
@example_keys_option
def disable(name: str, kind: str, reason: str, settings_file: Path, *, allow_example_keys: bool) -> Result:
    """Refuse NAME any new grant, and revoke every certificate and token that is alive.

    JSON: the members of 'user enroll'.
    """
    with facility(settings_file, allow_example_keys=allow_example_keys) as place:
        return disabled(place, machine(place, kind, name), reason=reason)


@command(example="certauth signer service enable ingest --reason 'back in service'")
@click.argument("name")
@kind_option
@reason_option
@settings_option
@example_keys_option
def enable(name: str, kind: str, reason: str, settings_file: Path, *, allow_example_keys: bool) -> Result:
    """Let NAME ask again, until its enrolment ends. What was revoked stays revoked.

    JSON: the members of 'user enroll'.
    """
    with facility(settings_file, allow_example_keys=allow_example_keys) as place:
        found = machine(place, kind, name)
        check_not_owned(found)
        return enabled(place, found, reason=reason)
