"""``certauth signer serve``: run the service until it is told to stop."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import structlog
from cryptography.hazmat.primitives.serialization import Encoding

from certauth.cli.output import command
from certauth.clock import system_clock
from certauth.errors import CertauthError
from policy.server import ServerSettings
from policy.server import serve as serve_app
from signer import authority as authorities
from signer import servers
from signer.app import create_app
from signer.cli.common import example_keys_option, load_settings, settings_option
from signer.service import Service, start
from signer.telemetry import configure_logging

_RENEWAL_SECONDS = 600.0

log = structlog.get_logger("signer")


@command(example="certauth signer serve --settings /etc/signer/signer.toml")
@settings_option
@example_keys_option
def serve(settings_file: Path, *, allow_example_keys: bool) -> None:
    """Run the service. It stops on SIGTERM or Ctrl-C, after finishing and recording what is under way.

    JSON: none; what it does is said by its log on standard error.
    """
    settings = load_settings(settings_file)
    configure_logging(settings.log_format)
    service = start(settings, environment=os.environ, clock=system_clock, allow_example_keys=allow_example_keys)
    stopping = threading.Event()
    try:
        passphrase = authorities.read_passphrase(settings, os.environ)
        renew = partial(_renew, service, passphrase, allow_example_keys=allow_example_keys)
        renew()
        keeper = threading.Thread(target=_keep_renewed, args=(renew, stopping), daemon=True)
        keeper.start()
        if allow_example_keys:
            log.warning("insecure.example-keys", hint="everybody has these private keys")
        app = create_app(service)
        # What exists now lives until the end. Left to the collector, each full collection would stop every request for
        # as long as it takes to look at all of it again.
        gc.collect()
        gc.freeze()
        serve_app(
            app,
            _server_settings(service, passphrase, allow_example_keys=allow_example_keys),
            on_failed_handshake=app.note_failed_handshake,
        )
        log.info("stopping")
    finally:
        stopping.set()
        service.close()


def _server_settings(service: Service, passphrase: bytes, *, allow_example_keys: bool) -> ServerSettings:
    settings = service.settings
    host, _, port = settings.listen.rpartition(":")
    chain, key = servers.own_paths(settings)
    roots = service.authority.root.public_bytes(Encoding.PEM) + service.authority.issuing.public_bytes(Encoding.PEM)
    return ServerSettings(
        host=host.strip("[]"),
        port=int(port),
        certificate=chain,
        key=key,
        passphrase=passphrase.decode(),
        client_roots=lambda: roots,
        allow_example_keys=allow_example_keys,
    )


def _renew(service: Service, passphrase: bytes, *, allow_example_keys: bool) -> None:
    servers.renew_own(
        service.settings,
        authority=service.authority,
        ledger=service.ledger,
        passphrase=passphrase,
        clock=service.clock,
        allow_example_keys=allow_example_keys,
    )


def _keep_renewed(renew: Callable[[], None], stopping: threading.Event) -> None:
    """Renew our own TLS certificate in time; the server notices the new file. A failure is said and tried again."""
    while not stopping.wait(_RENEWAL_SECONDS):
        try:
            renew()
        except CertauthError as error:
            log.error("tls.renewal-failed", code=error.code, detail=error.message)  # noqa: TRY400  no traceback needed
