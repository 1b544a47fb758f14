"""Options and arguments that several commands share.

What only some of them need is imported when they do: a command that works offline should not wait for the others.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from certauth.client.profile import Home, Profile
from certauth.clock import parse_duration
from certauth.errors import KeyMaterialError, LoginRequired, UsageError
from certauth.files import read_private

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from certauth.bundles import TrustBundle
    from certauth.keys import PublicKey, SoftwareKey
    from certauth.tokens.attenuate import Wishes
    from certauth.tokens.vocabulary import MemberOf

Function = TypeVar("Function", bound=Callable[..., Any])
_MAX_CA_FILE = 1024 * 1024
_MAX_CERTIFICATE_FILE = 256 * 1024
_MAX_PASSPHRASE = 1024
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


def _duration(value: str | timedelta) -> timedelta:
    return value if isinstance(value, timedelta) else parse_duration(value)


DURATION = click.types.FuncParamType(_duration)
"""A duration such as ``10m``; ``UsageError`` (``bad-duration``) otherwise."""
DURATION.name = "duration"
OUTPUT = click.Path(dir_okay=False, path_type=Path)
"""A file to write."""
READABLE = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)
"""An existing file."""


def profile_option(function: Function) -> Function:
    """``--profile DOMAIN``; the function receives ``profile_name``."""
    return click.option(
        "--profile",
        "profile_name",
        metavar="DOMAIN",
        help="Trust domain to use; default: $CERTAUTH_PROFILE, else the last login's.",
    )(function)


def example_keys_option(function: Function) -> Function:
    """``--insecure-example-keys``, off unless given; the function receives ``allow_example_keys``."""
    return click.option(
        "--insecure-example-keys",
        "allow_example_keys",
        is_flag=True,
        help="Accept a facility with published example keys. For trying out only.",
    )(function)


def read_bundle(file: Path, *, allow_example_keys: bool) -> TrustBundle:
    """The trust bundle in ``file``; ``ConfigError`` (``bundle-malformed``), ``KeyMaterialError`` (``example-key``)."""
    from certauth.bundles import MAX_BUNDLE, TrustBundle

    with file.open("rb") as stream:
        return TrustBundle.parse(stream.read(MAX_BUNDLE + 1), allow_example_keys=allow_example_keys)


def ca_option(function: Function) -> Function:
    """``--ca-file FILE``, repeatable; the function receives ``ca_file``."""
    return click.option(
        "--ca-file",
        type=READABLE,
        multiple=True,
        help="PEM roots to trust for TLS besides the facility's own; may be repeated.",
    )(function)


def rights_options(function: Function) -> Function:
    """``--read``, ``--write``, ``--right``; the function receives ``reads``, ``writes``, ``rights``."""
    for option in (
        click.option(
            "--right", "rights", metavar="OPERATION:PATH", multiple=True, help="Any operation on a path, e.g. delete:/data/x."
        ),
        click.option(
            "--write", "writes", metavar="PATH", multiple=True, help="Writing this path, or all below it if it ends in /."
        ),
        click.option(
            "--read", "reads", metavar="PATH", multiple=True, help="Reading this path, or all below it if it ends in /."
        ),
    ):
        function = option(function)
    return function


def narrowing_options(function: Function) -> Function:
    """The rights, and every other way to narrow a token; the function receives them as ``wishes``, for ``narrowed_to``."""

    @functools.wraps(function)
    def collect(*args: Any, **given: Any) -> Any:
        return function(*args, wishes=_wishes(given), **given)

    wrapped: Any = collect
    for option in (
        click.option(
            "--member",
            "members",
            metavar="GROUP@KEYFILE",
            multiple=True,
            help="Only if the group's key, or its certificate, vouches in the token; of several, one is enough.",
        ),
        click.option("--body", metavar="FILE|sha256:HEX", help="Only with this request body."),
        click.option("--uses", type=click.IntRange(min=1), help="Only so many times, at services that count."),
        click.option("--project", "projects", multiple=True, help="Only for this project; may be repeated."),
        click.option("--from", "networks", metavar="CIDR", multiple=True, help="Only from this network, e.g. 10.0.0.0/8."),
        click.option("--service", "services", multiple=True, help="Only at this service; may be repeated."),
        click.option("--for", "lifetime", type=DURATION, help="Only for this long from now, e.g. 10m."),
    ):
        wrapped = option(wrapped)
    complete: Function = rights_options(wrapped)
    return complete


def _wishes(given: dict[str, Any]) -> Wishes:
    """Take the narrowing options out of a command's parameters."""
    reads, writes, rights = given.pop("reads"), given.pop("writes"), given.pop("rights")
    body = given.pop("body")
    return {
        "read": reads or None,
        "write": writes or None,
        "rights": [split_right(right) for right in rights] or None,
        "expires_in": given.pop("lifetime"),
        "service": given.pop("services") or None,
        "networks": given.pop("networks") or None,
        "project": given.pop("projects") or None,
        "max_uses": given.pop("uses"),
        "body_sha256": None if body is None else body_digest(body),
        "members": [_member(member) for member in given.pop("members")] or None,
    }


def split_right(text: str) -> tuple[str, str]:
    """The operation and path of ``OPERATION:PATH``; ``UsageError`` (``usage``) for anything else."""
    operation, separator, path = text.partition(":")
    if not separator:
        raise UsageError("usage", f"{text[:80]!r} is not OPERATION:PATH", hint="e.g. --right delete:/data/x")
    return operation, path


def body_digest(text: str) -> str:
    """The SHA-256, in hex, of the file named ``text``, or the one that ``sha256:HEX`` says."""
    if text.startswith("sha256:"):
        return text.removeprefix("sha256:")  # the narrowing itself checks its form
    try:
        with Path(text).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        raise UsageError(
            "usage", f"{text[:80]!r} is not a readable file", hint="name the file that will be sent, or sha256:HEX"
        ) from error


def _member(text: str) -> MemberOf:
    from certauth.tokens.vocabulary import MemberOf

    group, separator, file = text.partition("@")
    if not separator:
        raise UsageError("usage", f"{text[:80]!r} is not GROUP@KEYFILE", hint="e.g. --member run7@als-groups.pem")
    return MemberOf(group, read_public(Path(file)))


def read_public(file: Path) -> PublicKey:
    """The public key in a PEM file, or that of the certificate in it; ``UsageError`` (``usage``) if it holds neither."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    from certauth.certificates import load_chain
    from certauth.keys import PublicKey

    try:
        pem = _start_of(file)
        key: object = load_chain(pem)[0].public_key() if b"BEGIN CERTIFICATE" in pem else load_pem_public_key(pem)
    except (OSError, ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, PublicKey):
        raise UsageError(
            "usage",
            f"{str(file)[:80]!r} holds neither a public key nor a certificate",
            hint="name a PEM file: openssl pkey -in KEY -pubout",
        )
    return key


def read_fingerprint(target: str) -> str:
    """The SHA-256 in hex of a certificate, given itself or as a PEM file (its first certificate)."""
    from certauth.certificates import fingerprint

    return target if _FINGERPRINT.fullmatch(target) else fingerprint(read_certificate(target))


def read_certificate(target: str) -> Certificate:
    """The first certificate in a PEM file; ``UsageError`` (``usage``), ``ChainError`` (``chain-malformed``)."""
    from certauth.certificates import load_chain

    try:
        return load_chain(_start_of(Path(target)))[0]
    except (OSError, ValueError) as error:
        raise UsageError(
            "usage",
            f"{target[:80]!r} is not a certificate file",
            hint="name a PEM file with a certificate, or its SHA-256 in hex",
        ) from error


def _start_of(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(_MAX_CERTIFICATE_FILE)


def key_options(*, required: bool, help: str) -> Callable[[Function], Function]:  # noqa: A002  as click calls it
    """``--key FILE``, ``--passphrase-file FILE``; the function receives ``key_file`` and ``passphrase_file``."""

    def add(function: Function) -> Function:
        passphrase = click.option(
            "--passphrase-file", type=READABLE, help="File with the key's passphrase; default: ask on the terminal."
        )
        return click.option("--key", "key_file", type=READABLE, required=required, help=help)(passphrase(function))

    return add


def read_key(file: Path, passphrase_file: Path | None) -> SoftwareKey:
    """The private key in a PEM file; its passphrase comes from a private file or the terminal, never from the command line.

    Raises ``KeyMaterialError``: ``key-locked`` if it needs one and nobody can be asked.
    """
    from certauth.keys import load_private

    if passphrase_file is not None:
        passphrase = read_private(passphrase_file)[:_MAX_PASSPHRASE].rstrip(b"\r\n")
        return load_private(file, passphrase=passphrase)
    try:
        return load_private(file, passphrase=None)
    except KeyMaterialError as error:
        if error.code != "key-locked":
            raise
        if not sys.stdin.isatty():
            error.hint = "name a file with it: --passphrase-file FILE"
            raise
    asked = click.prompt(f"passphrase of {file}", hide_input=True, err=True)
    return load_private(file, passphrase=str(asked).encode())


def target_options(function: Function) -> Function:
    """``--as NAME``, ``--output FILE``: where a new token goes."""
    for option in (
        click.option("--output", "-o", type=OUTPUT, help="Write the token to this file, mode 0600."),
        click.option("--as", "name", metavar="NAME", help="Store the token under this name instead of printing it."),
    ):
        function = option(function)
    return function


def home(profile_name: str | None = None) -> Home:
    """The user's profiles."""
    return Home.find(os.environ, chosen=profile_name)


def active(profile_name: str | None) -> Profile:
    """The profile that was named, else the active one; ``LoginRequired`` if there is none."""
    return home(profile_name).active()


def active_if_any(profile_name: str | None) -> Profile | None:
    """The profile, if there is one: what is done to a token in a file needs no login."""
    try:
        return active(profile_name)
    except LoginRequired:
        return None


def read_ca(files: tuple[Path, ...]) -> bytes | None:
    """The PEM text of all ``files``; ``None`` if there are none."""
    if not files:
        return None
    pem = b"\n".join(file.read_bytes() for file in files)
    if len(pem) > _MAX_CA_FILE:
        raise UsageError("bad-ca-file", "the CA files are too large", hint="name only the roots that are needed")
    return pem
