"""``certauth signer service certificate | revoke``: TLS certificates for the facility's services."""

from __future__ import annotations

from pathlib import Path

import click

from certauth import certificates, keys
from certauth.cli.output import Result, command, fields
from certauth.clock import rfc3339, system_clock
from certauth.errors import ConfigError, UsageError
from certauth.files import PUBLIC, make_private_directory, write_atomic
from certauth.keys import Algorithm
from certauth.names import Kind, Principal, label
from signer import servers
from signer.cli.common import acting, example_keys_option, facility, reason_option, settings_option
from signer.cli.people import checked_reason
from signer.cli.withdrawing import withdraw


@command(
    example="certauth signer service certificate data --host data.als.example --directory /etc/data/tls "
    "--reason 'new data service'"
)
@click.argument("name")
@click.option("--host", "hosts", multiple=True, required=True, help="A DNS name or IP address it is reached under.")
@click.option(
    "--directory",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where chain.pem and key.pem go; an existing key is kept.",
)
@reason_option
@settings_option
@example_keys_option
def certificate(
    name: str, hosts: tuple[str, ...], directory: Path, reason: str, settings_file: Path, *, allow_example_keys: bool
) -> Result:
    """Make or renew the TLS certificate of the service NAME, on this machine.

    The certificate is good for being a server under these hosts, and for calling other services.

    JSON: principal, not_after, certificate, key.
    """
    names = servers.named(name, hosts)  # first: a name that is none leaves nothing behind
    why = checked_reason(reason)
    make_private_directory(directory)
    chain_path, key_path = directory / "chain.pem", directory / "key.pem"
    if not key_path.exists():
        keys.save_private(key_path, keys.generate(Algorithm.P256), passphrase=None)
    key = keys.load_private(key_path, passphrase=None, allow_example_keys=allow_example_keys)
    if key.algorithm is Algorithm.ED25519:
        raise ConfigError("bad-key", f"{key_path} is an Ed25519 key; chains are P-256 or P-384")
    with facility(settings_file, allow_example_keys=allow_example_keys) as place:
        chain = servers.issue(
            names,
            key.public_key,
            authority=place.authority,
            ledger=place.ledger,
            clock=system_clock,
            by=acting(),
            why=why,
        )
    write_atomic(chain_path, certificates.dump_chain(chain), mode=PUBLIC)
    data = {
        "principal": str(certificates.principal_of(chain[0])),
        "not_after": rfc3339(chain[0].not_valid_after_utc),
        "certificate": str(chain_path),
        "key": str(key_path),
    }
    return Result(data=data, text=fields(data.items()))


@command(example="certauth signer service revoke data --reason 'machine replaced'")
@click.argument("name")
@click.option("--certificate", "fingerprint", metavar="FINGERPRINT", help="Only this certificate.")
@reason_option
@settings_option
@example_keys_option
def revoke(name: str, fingerprint: str | None, reason: str, settings_file: Path, *, allow_example_keys: bool) -> Result:
    """Revoke the certificates of the service NAME made until now, or a single one.

    Doors refuse them as a client at once. A client that connects to the service does not ask: make a new key as well.

    JSON: principal, kind, value.
    """
    with facility(settings_file, allow_example_keys=allow_example_keys) as place:
        principal = Principal.make(place.authority.domain, Kind.SERVICE, label(name, "a service"))
        if not place.store.certificates(principal=principal, limit=1):
            raise UsageError("not-found", f"no certificate was made for {principal}", hint="compare the name")
        return withdraw(place, principal, certificate=fingerprint, jti=None, reason=reason)
