"""One document of a facility behind ``https``, fetched again and again: its revocation feed, or its bundle."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2

from certauth.bundles import TrustBundle
from certauth.certificates import dump_chain

TIMEOUT = 5.0
"""Seconds for each step of a fetch: connect, send, wait for the next bytes."""
DEADLINE = 30.0
"""Seconds for a whole fetch: a server that sends one byte at a time, of a header or a body, must not hold the thread."""


class NotFetchedError(Exception):
    """No document came, for the reason it says. Those who asked make an error with a code of it."""


class TooLongError(NotFetchedError):
    """More came than such a document may have."""


class Fetcher:
    """A connection that is kept between fetches. Not for two threads at once."""

    def __init__(self, url: str, *, ca_file: Path | None, limit: int, deadline: float = DEADLINE) -> None:
        """Believe the authorities in ``ca_file``, or else those of the bundle; ``limit`` is in bytes."""
        self.url = url
        self._ca_file = ca_file
        self._limit = limit
        self._deadline = deadline
        self._client: httpx2.Client | None = None
        self._socket: socket.socket | None = None

    def fetch(self, bundle: TrustBundle) -> bytes:
        """The document, from a server that ``bundle`` vouches for, without redirects. Raises ``NotFetchedError``."""
        late = threading.Event()
        timer = threading.Timer(self._deadline, self._hang_up, (late,))
        timer.daemon = True
        timer.start()
        try:
            data = self._get(bundle, late)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            self.close()
            problem = NotFetchedError(f"cannot fetch {self.url}: {type(error).__name__}")
            raise (self._too_late() if late.is_set() else problem) from error
        finally:
            timer.cancel()
        if late.is_set():  # an answer without a length ends where we hung up
            self.close()
            raise self._too_late()
        return data

    def close(self) -> None:
        """Close the connection; the next fetch makes a new one, and looks again at whom to believe."""
        if self._client is not None:
            self._client.close()
            self._client = self._socket = None

    def _get(self, bundle: TrustBundle, late: threading.Event) -> bytes:
        def connected(event: str, about: Mapping[str, Any]) -> None:
            if event == "connection.start_tls.complete":
                self._socket = about["return_value"].get_extra_info("socket")
                if late.is_set():
                    self._hang_up(late)

        if self._client is None:
            context = _tls_context(self._ca_file, bundle)
            self._client = httpx2.Client(verify=context, trust_env=False, follow_redirects=False, timeout=TIMEOUT)
        headers, data = {"accept-encoding": "identity"}, bytearray()
        with self._client.stream("GET", self.url, headers=headers, extensions={"trace": connected}) as response:
            if response.status_code != httpx2.codes.OK:
                raise NotFetchedError(f"{self.url} answered {response.status_code}")
            for chunk in response.iter_raw():  # not decoded: a compressed answer could be a thousand times its size
                data += chunk
                if len(data) > self._limit:
                    raise TooLongError(f"{self.url} sent more than {self._limit} bytes")
        return bytes(data)

    def _hang_up(self, late: threading.Event) -> None:
        """End the fetch under way, from another thread: whoever waits for the socket is woken, however little it sends."""
        late.set()
        connection = self._socket
        if connection is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)  # not that of TLS, which another thread is using

    def _too_late(self) -> NotFetchedError:
        return NotFetchedError(f"{self.url} did not finish in {self._deadline:.0f} s")


def _tls_context(ca_file: Path | None, bundle: TrustBundle) -> ssl.SSLContext:
    """TLS that believes only the domain's own authorities, or those of ``ca_file``; never the machine's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca_file is not None:
        context.load_verify_locations(cafile=ca_file)
    else:
        context.load_verify_locations(cadata=dump_chain((*bundle.x509_roots, *bundle.x509_issuers)).decode("ascii"))
    return context
