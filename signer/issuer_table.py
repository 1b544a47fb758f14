"""An ``[[issuer]]`` table as text, and adding one to a settings file without losing what people wrote there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from certauth.errors import ConfigError, StoreError
from certauth.files import write_atomic
from signer import settings as configuration
from signer.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerTable:
    """The members of an ``[[issuer]]`` table that somebody decides when a provider is connected; empty ones are not written."""

    id: str
    url: str
    client_id: str
    public_client_id: str | None = None
    algorithms: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    bindings: tuple[str, ...] = ()
    access_token_audience: str | None = None
    enrolment: str | None = None
    assurance: int | None = None
    allowed_hosts: tuple[str, ...] = ()
    ca_file: Path | None = None
    client_secret_file: Path | None = None
    jwks_file: Path | None = None
    jwks_uri: str | None = None
    bearer_file: Path | None = None
    proxy: str | None = None
    single_key: bool = False
    device: bool = False
    introspection: bool = False
    allow_loopback_http: bool = False

    def toml(self) -> str:
        """The table as TOML, with its heading and a line break at the end."""
        members = {field.name: getattr(self, field.name) for field in fields(self)}
        lines = [f"{name} = {_toml(value)}" for name, value in members.items() if value not in (None, (), False)]
        return "\n".join(["[[issuer]]", *lines, ""])


def append(
    settings_file: Path,
    table: IssuerTable,
    *,
    environment: Mapping[str, str],
    write: bool = True,
    before_write: Callable[[], None] | None = None,
) -> Settings:
    """Add ``table`` at the end of the settings file; what is there stays as it is. Returns the settings as they are then.

    The whole is validated first, and the file replaced in one step; ``write=False`` only validates. What ``before_write``
    raises leaves the file unchanged, too. Raises ``ConfigError``
    (``issuer-duplicate``, ``settings-invalid``, ``settings-malformed``, ``settings-unreadable``, ``settings-busy``) or
    ``StoreError`` (``cannot-write``); the file is unchanged then.
    """
    path = settings_file.resolve()  # a link stays a link
    with _alone(path.parent):
        present = configuration.load(path, environment)
        for issuer in present.issuer:
            if table.url == issuer.url or table.id == issuer.id:
                raise ConfigError(
                    "issuer-duplicate",
                    f"issuer {issuer.id!r} ({issuer.url}) is configured already in {settings_file}",
                    hint="change its table there, or give this one another --id",
                )
        text = path.read_text(encoding="utf-8")
        text = f"{text}{'' if text.endswith(chr(10)) or not text else chr(10)}\n{table.toml()}"
        settings = configuration.parse(text, path, environment)
        if write:
            if before_write is not None:
                before_write()
            write_atomic(path, text.encode(), mode=stat.S_IMODE(path.stat().st_mode))
    return settings


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Hold the directory of the settings: of two changes at once neither is lost, one is refused."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise StoreError("cannot-write", f"cannot open {directory}: {error.strerror}", hint="name the settings file") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise ConfigError(
            "settings-busy", f"the settings in {directory} are being changed at this moment", hint="try again"
        ) from error
    finally:
        os.close(descriptor)


def _toml(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case tuple():
            return f"[{', '.join(map(_toml, value))}]"
        case _:
            escaped = "".join(f"\\u{ord(c):04x}" if ord(c) < 0x20 or c in '"\\\x7f' else c for c in str(value))
            return f'"{escaped}"'
