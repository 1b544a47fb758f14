"""Certificate and token for programs that make their own HTTP requests.

    from certauth.client.auth import client

    with client(token="run7") as http:
        http.get("https://data.als.example/data/run7/frame1")

``TokenAuth`` alone is the ``auth`` of any httpx2 or httpx client, synchronous or not; ``context`` is its ``verify``.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import httpx2

from certauth.certificates import dump_chain
from certauth.client.http import origin_of, trust
from certauth.client.profile import Home, Profile
from certauth.client.sources import read_file, read_stored
from certauth.clock import Clock, system_clock
from certauth.errors import UsageError

_TIMEOUT = httpx2.Timeout(30.0, connect=10.0)
_DIRECT = dict.fromkeys(("https://127.0.0.1", "https://[::1]", "https://localhost"))
"""This machine itself is reached without the proxies of the environment, as ``certauth call`` does."""


class _Request(Protocol):
    """What httpx and httpx2 hand to an auth callable."""

    @property
    def url(self) -> Any: ...

    @property
    def headers(self) -> MutableMapping[str, str]: ...


RequestT = TypeVar("RequestT", bound=_Request)


class TokenAuth:
    """Sends a token with every request: ``httpx2.Client(auth=TokenAuth.stored("run7"))``.

    The token is read again for each request, so a program that runs for long sends the one that was stored last. It leaves for
    https addresses only, and with ``origin`` for that one alone: ``UsageError`` (``bad-url``, ``other-origin``) otherwise,
    before anything is sent. A redirect to another origin does not carry it, which httpx sees to.
    """

    def __init__(self, read: Callable[[], str], *, origin: str | None = None) -> None:
        self._read = read
        self._origin = None if origin is None else origin_of(origin)

    @classmethod
    def stored(cls, name: str, *, profile: Profile | None = None, origin: str | None = None) -> TokenAuth:
        """The token stored under ``name``, in the active profile if none is given; ``UsageError`` (``token-unreadable``)."""
        chosen = profile or _active()
        return cls(lambda: read_stored(chosen, name), origin=origin)

    @classmethod
    def file(cls, path: str | Path, *, origin: str | None = None) -> TokenAuth:
        """The token in a file; ``UsageError`` (``token-unreadable``)."""
        return cls(lambda: read_file(Path(path)), origin=origin)

    def __call__(self, request: RequestT) -> RequestT:
        """``request`` with its token: the interface of httpx's and httpx2's ``auth``."""
        origin = origin_of(str(request.url))
        if self._origin not in {None, origin}:
            raise UsageError(
                "other-origin",
                f"the token is for {self._origin} and is not sent to {origin}",
                hint="make another client for it",
            )
        request.headers["authorization"] = f"Bearer {self._read()}"
        return request

    def __repr__(self) -> str:
        return f"<TokenAuth for {self._origin or 'any https origin'}>"


def context(profile: Profile, *, ca: bytes | None = None, clock: Clock = system_clock) -> ssl.SSLContext:
    """A TLS client context that shows the profile's certificate and trusts its facility's roots, and those in ``ca`` (PEM).

    Raises ``LoginRequired`` if the certificate is missing or has run out. It shows the certificate of now: after a renewal,
    make another.
    """
    roots = dump_chain(list(profile.bundle().x509_roots)) + (profile.extra_roots() or b"") + (ca or b"")
    made = trust(roots=roots, system=False)
    profile.present(made, now=clock())
    return made


def client(
    profile: Profile | None = None,
    *,
    token: str | TokenAuth | None = None,
    base_url: str = "",
    ca: bytes | None = None,
    clock: Clock = system_clock,
) -> httpx2.Client:
    """An ``httpx2.Client`` with the user's certificate and, if named, a stored token; follows no redirects.

    Without ``profile`` it is the one that commands use. With ``base_url`` the token is sent to that origin alone. Raises
    ``LoginRequired``, and ``UsageError`` as ``TokenAuth`` does.
    """
    chosen = profile or _active()
    origin = origin_of(base_url) if base_url else None
    auth = TokenAuth.stored(token, profile=chosen, origin=origin) if isinstance(token, str) else token
    return httpx2.Client(
        verify=context(chosen, ca=ca, clock=clock),
        auth=auth,
        base_url=base_url,
        timeout=_TIMEOUT,
        follow_redirects=False,
        mounts=_DIRECT,
    )


def _active() -> Profile:
    return Home.find(os.environ).active()
