"""``certauth signer init`` and ``status``: make a facility, and look at one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import click
from cryptography.hazmat.primitives.hashes import SHA256

from certauth import certificates, keys
from certauth.audit import record
from certauth.cli.output import Result, command, fields, progress
from certauth.clock import rfc3339, system_clock
from certauth.errors import ConfigError
from certauth.files import PUBLIC, make_private_directory, write_atomic
from signer import authority as authorities
from signer import servers
from signer import settings as configuration
from signer.authority import Authority
from signer.cli.common import DEFAULT_SETTINGS, acting, example_keys_option, facility, settings_option
from signer.database import sqlite_url
from signer.key_index import Use
from signer.key_ring import KeyRing
from signer.ledger import Ledger, Submission
from signer.service import open_ledger
from signer.settings import Settings
from signer.store import create_store

_TEMPLATE = """\
# Settings of the signer of {domain}. Every key is described in the settings reference; unknown ones are refused.
trust_domain = {domain_text}
public_url = {url_text}
listen = {listen_text}

# Principals that may revoke other people's credentials over the network.
admins = []

{issuer}"""

_ISSUER = """\
[[issuer]]
id = {id}
url = {url}
client_id = {client_id}
{extra}"""

_NO_ISSUER = """\
# Who proves that people are who they say: one table for each identity provider.
# [[issuer]]
# id = "campus"
# url = "https://idp.example.org"
# client_id = "certauth-signer"
"""


@command(
    example="certauth signer init --trust-domain als.example --public-url https://signer.als.example:8443",
)
@click.option("--directory", type=click.Path(file_okay=False, path_type=Path), default=".", help="Where to make it.")
@click.option("--trust-domain", required=True, help="The facility's name, e.g. als.example.")
@click.option("--public-url", required=True, help="Where clients reach the signer, https://host[:port].")
@click.option("--listen", help="Address and port to serve on; default: all addresses at the port of the public URL.")
@click.option("--issuer-url", help="An identity provider, exactly as its tokens spell it.")
@click.option("--client-id", help="The client id registered there for this signer.")
@click.option("--issuer-ca", type=click.Path(dir_okay=False, exists=True, path_type=Path), help="PEM roots of its TLS.")
@click.option("--issuer-id", default="idp", show_default=True, help="A short name for it.")
@click.option("--open-enrolment", is_flag=True, help="Let everyone it vouches for in, without rights of their own.")
def init(
    directory: Path,
    trust_domain: str,
    public_url: str,
    listen: str | None,
    issuer_url: str | None,
    client_id: str | None,
    issuer_ca: Path | None,
    issuer_id: str,
    *,
    open_enrolment: bool,
) -> Result:
    """Make a facility: keys, root and issuing certificates, trust bundle, database, log and settings.

    Nothing that exists is overwritten, and if anything fails nothing is left behind.

    JSON: trust_domain, public_url, settings, root_sha256, root, bundle, log_vkey, root_key.
    """
    if (issuer_url is None) is not (client_id is None):
        raise click.UsageError("--issuer-url and --client-id go together")
    port = urlsplit(public_url).port or 443
    issuer = _issuer_table(issuer_id, issuer_url, client_id or "", issuer_ca, open_enrolment=open_enrolment)
    text = _TEMPLATE.format(
        domain=trust_domain,
        domain_text=_toml(trust_domain),
        url_text=_toml(public_url),
        listen_text=_toml(listen or f"0.0.0.0:{port}"),
        issuer=issuer,
    )
    path = directory / DEFAULT_SETTINGS
    settings = configuration.parse(text, path, os.environ)
    make_private_directory(directory)
    progress("making keys and certificates")
    with _alone(directory), _all_or_nothing(settings, path):
        authority = authorities.create(settings, now=system_clock())
        create_store(sqlite_url(settings.database_path), domain=authority.domain, origin=authority.origin).close()
        store, ledger = open_ledger(settings, authority, clock=system_clock)
        try:
            _record_keys(authority, KeyRing(authority, store), ledger)
            passphrase = authorities.read_passphrase(settings, os.environ)
            servers.renew_own(settings, authority=authority, ledger=ledger, passphrase=passphrase, clock=system_clock)
        finally:
            ledger.close()
            store.close()
        # Last: a directory with settings is a complete facility.
        write_atomic(path, text.encode(), mode=PUBLIC)
    return _made(settings, authority, path)


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Hold the directory: of two that begin at once, one makes the facility and the other changes nothing."""
    # The directory itself is locked: a lock file would have to be removed, and could be held twice while it is.
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise ConfigError("already-initialised", f"a facility is being made in {directory} at this moment") from error
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _all_or_nothing(settings: Settings, settings_file: Path) -> Iterator[None]:
    """Remove what was made if not everything could be; refuse to begin where something is already."""
    made = [settings.state / name for name in ("keys", "certificates", "secrets", "tls", "bundle.json")]
    made += [settings.database_path.with_name(settings.database_path.name + end) for end in ("", "-wal", "-shm", ".lock")]
    present = [str(path) for path in [settings_file, *made] if path.exists()]
    if present:
        raise ConfigError(
            "already-initialised", f"{', '.join(present)} exists; nothing was changed", hint="choose another --directory"
        )
    try:
        yield
    except BaseException:
        for path in made:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        raise


def _issuer_table(issuer_id: str, url: str | None, client_id: str, ca_file: Path | None, *, open_enrolment: bool) -> str:
    if url is None:
        return _NO_ISSUER
    extra = f"ca_file = {_toml(str(ca_file.resolve()))}\n" if ca_file else ""
    extra += 'enrolment = "open"\n' if open_enrolment else ""
    return _ISSUER.format(id=_toml(issuer_id), url=_toml(url), client_id=_toml(client_id), extra=extra)


def _toml(text: str) -> str:
    """``text`` as a TOML basic string."""
    escaped = "".join(f"\\u{ord(c):04x}" if ord(c) < 0x20 or c in '"\\\x7f' else c for c in text)
    return f'"{escaped}"'


def _record_keys(authority: Authority, ring: KeyRing, ledger: Ledger) -> None:
    """Each key's first use is an entry: a key that the log does not know was not made here."""
    used = {
        "root": authority.root.public_key(),
        "issuing": authority.issuing.public_key(),
        "token": ring.current().index.active(Use.TOKEN).public,
        "log": authority.log_key.public_key,
        "feed": authority.feed_key.public_key,
        "jwt": ring.current().index.active(Use.JWT).public,
    }
    for use, public in used.items():
        if isinstance(public, keys.PublicKey):
            event = record.KeyAdded(use=use, kid=keys.key_id(public), spki=keys.fingerprint(public), by=acting())
            digest = bytes.fromhex(keys.fingerprint(public))
            ledger.record(Submission(request_id=f"key-{use}-{secrets.token_hex(6)}", digest=digest, event=event))


def _made(settings: Settings, authority: Authority, path: Path) -> Result:
    root = authority.root.fingerprint(SHA256()).hex()
    root_key = settings.state / "keys" / "root.pem"
    data = {
        "trust_domain": settings.trust_domain,
        "public_url": settings.public_url,
        "settings": str(path),
        "root_sha256": root,
        "root": str(settings.state / "certificates" / "root.pem"),
        "bundle": str(settings.state / "bundle.json"),
        "log_vkey": authority.bundle.log_vkey,
        "root_key": str(root_key),
    }
    text = fields(
        [
            ("trust domain", settings.trust_domain),
            ("settings", path),
            ("root certificate", data["root"]),
            ("its SHA-256", root),
            ("log key", authority.bundle.log_vkey),
        ]
    )
    todo = f"Next: move {root_key} to a safe place off this machine; it is needed again to renew the issuing key.\n"
    todo += f"Then: certauth signer serve --settings {path}"
    return Result(data=data, text=f"{text}\n\n{todo}")


@command(example="certauth signer status")
@settings_option
@example_keys_option
def status(settings_file: Path, *, allow_example_keys: bool) -> Result:
    """Show what this facility is and how its log stands.

    JSON: trust_domain, public_url, issuers, enrolled, log_entries, checkpoint, issuing_not_after, tls_not_after.
    """
    with facility(settings_file, allow_example_keys=allow_example_keys) as place, place.store.log() as reader:
        head, note = reader.head(), reader.checkpoint()
        end = place.authority.issuing.not_valid_after_utc
        chain = certificates.load_chain(servers.own_paths(place.settings)[0].read_bytes())
        data: dict[str, object] = {
            "trust_domain": place.settings.trust_domain,
            "public_url": place.settings.public_url,
            "issuers": [issuer.url for issuer in place.settings.issuer],
            "enrolled": len(place.store.enrolled_principals()),
            "log_entries": head.size,
            "checkpoint": note,
            "issuing_not_after": rfc3339(end),
            "tls_not_after": rfc3339(chain[0].not_valid_after_utc),
        }
    return Result(data=data, text=fields([(name, value) for name, value in data.items() if name != "checkpoint"]))
