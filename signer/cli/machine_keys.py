"""``certauth signer service key add | remove``: the keys with which a machine signs its assertions (RFC 7523)."""

from __future__ import annotations

from pathlib import Path

import click

from certauth.cli.output import Result, command
from certauth.clock import system_clock
from certauth.errors import UsageError
from signer.cli.common import acting, example_keys_option, facility, reason_option, settings_option
from signer.cli.machines import key_row, kind_option, machine
from signer.cli.people import act
from signer.client_keys import read_client_key
from signer.ending import everything_of
from signer.rows import ClientKeyRemoved, StoreRow


@command(example="certauth signer service key add ingest ingest-2.pub --reason 'yearly change of keys'")
@click.argument("name")
@click.argument("key_file", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@kind_option
@reason_option
@settings_option
@example_keys_option
def add(name: str, key_file: Path, kind: str, reason: str, settings_file: Path, *, allow_example_keys: bool) -> Result:
    """Add the public key in FILE, PEM or JWK. Assertions name it by the kid that is printed, its RFC 7638 thumbprint.

    JSON: principal, kid.
    """
    key = read_client_key(key_file.read_bytes(), allow_example_keys=allow_example_keys)
    with facility(settings_file, allow_example_keys=allow_example_keys) as place:
        principal = machine(place, kind, name).enrolment.principal
        if key.jwk in place.store.client_keys(principal):
            raise UsageError("key-present", f"{principal} has this key already", hint="certauth signer service show")
        row = key_row(place, principal, key, at=system_clock())
        act(place, action="key-add", principal=principal, reason=reason, rows=(row,), terms={"kid": key.kid})
    return Result(data={"principal": str(principal), "kid": key.kid}, text=f"{principal} has the key {key.kid}.")


@command(example="certauth signer service key remove ingest KID --compromised --reason 'ticket 4711'")
@click.argument("name")
@click.argument("kid")
@click.option("--compromised", is_flag=True, help="Also revoke everything issued until now: whoever has the key may hold it.")
@kind_option
@reason_option
@settings_option
@example_keys_option
def remove(
    name: str, kid: str, kind: str, reason: str, settings_file: Path, *, compromised: bool, allow_example_keys: bool
) -> Result:
    """Remove the key KID of NAME, as 'service show' lists it.

    JSON: principal, kid.
    """
    with facility(settings_file, allow_example_keys=allow_example_keys) as place:
        principal = machine(place, kind, name).enrolment.principal
        if not any(f'"{kid}"' in jwk for jwk in place.store.client_keys(principal)):
            raise UsageError("key-unknown", f"{principal} has no such key", hint="certauth signer service show")
        rows: tuple[StoreRow, ...] = (ClientKeyRemoved(principal=principal, kid=kid),)
        if compromised:
            rows += everything_of(place.store, principal, by=acting(), why=reason, at=system_clock())
        act(place, action="key-remove", principal=principal, reason=reason, rows=rows, terms={"kid": kid})
    return Result(data={"principal": str(principal), "kid": kid}, text=f"The key {kid} of {principal} is removed.")
