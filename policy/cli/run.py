"""``certauth policy run``."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import click

from certauth.cli.output import command, progress
from certauth.errors import ConfigError, UsageError
from policy.middleware import PolicyMiddleware
from policy.rules import Policy
from policy.server import ServerSettings, serve
from policy.trust import Trust

_FILE = click.Path(path_type=Path)


@command(
    example="certauth policy run files:app --policy policy.toml --trust trust.toml "
    "--certificate service.crt --key service.key --listen 0.0.0.0:8443"
)
@click.argument("app", metavar="MODULE:APP")
@click.option("--policy", type=_FILE, default="policy.toml", show_default=True, help="The rules.")
@click.option("--trust", type=_FILE, default="trust.toml", show_default=True, help="Whom to believe.")
@click.option("--certificate", type=_FILE, required=True, help="The server's chain, PEM, leaf first.")
@click.option("--key", type=_FILE, required=True, help="Its private key, PEM, mode 0600.")
@click.option("--listen", default="127.0.0.1:8443", show_default=True, help="Address and port.")
@click.option("--app-dir", type=_FILE, default=".", show_default=True, help="Where MODULE is looked for first.")
@click.option("--insecure-example-keys", "example_keys", is_flag=True, help="Accept keys whose private half is published.")
def run(
    app: str, policy: Path, trust: Path, certificate: Path, key: Path, listen: str, app_dir: Path, *, example_keys: bool
) -> None:
    """Serve an unmodified ASGI app over mutual TLS, every request decided by its policy.

    Rules are read at the start; trust, revocations, certificate and key are followed while it runs.

    JSON: none; what it decides is in its decision files.
    """
    host, port = _address(listen)
    rules, believed = Policy.load(policy), Trust.load(trust, allow_example_keys=example_keys)
    guarded = PolicyMiddleware(_load(app, app_dir), policy=rules, trust=believed)
    settings = ServerSettings(
        host=host,
        port=port,
        certificate=certificate,
        key=key,
        client_roots=believed.client_roots,
        allow_example_keys=example_keys,
    )
    progress(f"{app} on https://{host}:{port}, decided by {policy}")
    serve(guarded, settings, on_failed_handshake=guarded.note_failed_handshake)


def _address(text: str) -> tuple[str, int]:
    """``host:port``, with an IPv6 host in brackets."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise UsageError("bad-address", f"{text!r} is not an address and a port", hint="127.0.0.1:8443 or [::1]:8443")
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port)


def _load(target: str, directory: Path) -> Any:
    module, colon, attribute = target.partition(":")
    if not colon or not attribute:
        raise UsageError("bad-app", f"{target!r} does not name an app", hint="write package.module:app")
    sys.path.insert(0, str(directory.resolve()))
    try:
        found: Any = importlib.import_module(module)
        for name in attribute.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError) as error:
        raise ConfigError("app-unusable", f"cannot load {target}: {error}", hint="--app-dir says where to look") from error
    return found
