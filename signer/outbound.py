"""HTTP to one identity provider, which may be slow, broken or hostile: bounded in time and size, and never led elsewhere.

1. One deadline covers a request from its connection to the last byte.
2. A body ends at ``MAX_ANSWER``; compressed ones, which are small here and gigabytes unpacked, are refused.
3. Redirects are not followed. A proxy is used only if one is configured for this provider; the environment's is not.
4. TLS is verified against the provider's CA file, or else the system's roots; TLS 1.2 at least.
5. What is raised says what kind of thing went wrong and never quotes an answer, a credential or a query.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx2

from certauth.errors import ConfigError, UnavailableError

MAX_ANSWER: Final = 256 * 1024
"""Largest body of an answer, in bytes: 64 keys with their certificate chains fit."""

_MAX_AGE: Final = re.compile(r"(?:^|[\s,])max-age=(\d{1,9})(?:$|[\s,])", re.IGNORECASE)
_HEADERS: Final = {"accept": "application/json", "accept-encoding": "identity", "user-agent": "certauth"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a provider answered. ``max_age``: Cache-Control's, in seconds. The body may be a secret and is not shown."""

    status: int
    body: bytes
    content_type: str
    max_age: float | None

    def __repr__(self) -> str:
        return f"Answer(status={self.status}, {len(self.body)} bytes of {self.content_type!r})"


class Outbound:
    """How one provider is reached. Each request has a connection of its own: requests are rare, and idle connections die."""

    def __init__(self, *, ca_file: Path | None = None, proxy: str | None = None, timeout: float = 5) -> None:
        """Raise ``ConfigError`` (``ca-file-unreadable``, ``proxy-invalid``). ``timeout`` is in seconds."""
        self._tls = _tls_context(ca_file)
        self._proxy = None if proxy is None else httpx2.Proxy(_checked_proxy(proxy))
        self._timeout = timeout

    async def get(self, url: str, *, bearer: str | None = None, host: str | None = None) -> Answer:
        """GET ``url``; the answer's status is 200. Raises ``UnavailableError`` (``issuer-unavailable``) for any other end.

        ``host`` replaces the Host header, which only a probe has a reason for.
        """
        headers = {} if bearer is None else {"authorization": f"Bearer {bearer}"}
        if host is not None:
            headers["host"] = host
        answer = await self._request("GET", url, headers=headers)
        if answer.status != 200:
            raise UnavailableError("issuer-unavailable", f"it answered {answer.status}", hint=_HINT)
        return answer

    async def post(self, url: str, form: Mapping[str, str], *, basic: tuple[str, str] | None = None) -> Answer:
        """POST a form, perhaps with HTTP basic authentication; the answer, whatever its status.

        Raises ``UnavailableError`` (``issuer-unavailable``) if there is none that can be used.
        """
        return await self._request("POST", url, form=form, basic=basic)

    async def _request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        form: Mapping[str, str] | None = None,
        basic: tuple[str, str] | None = None,
    ) -> Answer:
        try:
            async with asyncio.timeout(self._timeout), self._client() as client:
                auth = httpx2.USE_CLIENT_DEFAULT if basic is None else httpx2.BasicAuth(*basic)
                async with client.stream(method, url, headers=headers, data=form, auth=auth) as response:
                    return await _read(response)
        except UnavailableError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a hostile answer makes a library raise, it is this provider's failure
            raise UnavailableError("issuer-unavailable", in_words(error), hint=_HINT) from None  # its text may quote the answer

    def _client(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            verify=self._tls,
            proxy=self._proxy,
            headers=_HEADERS,
            timeout=self._timeout,
            trust_env=False,
            follow_redirects=False,
        )


_HINT: Final = "'certauth signer issuer check' shows what is wrong with it"


async def _read(response: httpx2.Response) -> Answer:
    if response.headers.get("content-encoding", "identity") != "identity":
        raise UnavailableError("issuer-unavailable", "it compressed its answer unasked", hint=_HINT)
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > MAX_ANSWER:
            raise UnavailableError("issuer-unavailable", f"its answer is larger than {MAX_ANSWER} bytes", hint=_HINT)
    found = _MAX_AGE.search(response.headers.get("cache-control", ""))
    return Answer(
        status=response.status_code,
        body=bytes(body),
        content_type=response.headers.get("content-type", "").partition(";")[0].strip().lower()[:100],
        max_age=float(found[1]) if found else None,
    )


def in_words(error: BaseException) -> str:
    """A cause for status and messages: our sentences, else the kind of error only; foreign texts may quote the input."""
    match error:
        case UnavailableError() | ConfigError():
            return error.message
        case TimeoutError() | httpx2.TimeoutException():
            return "it does not answer in time"
        case httpx2.ProxyError():
            return "the proxy does not let us through to it"
        case httpx2.ConnectError() if isinstance(error.__cause__, ssl.SSLError) or "CERTIFICATE" in str(error):
            return "its TLS certificate is not trusted"
        case _:
            return f"its answer cannot be used ({type(error).__name__})"


def _checked_proxy(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    plain = url.isascii() and url.isprintable() and parts.path in {"", "/"} and not (parts.query or parts.fragment)
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0 or "@" in parts.netloc or not plain:
        # The text is not repeated: somebody may have put a password into it.
        raise ConfigError("proxy-invalid", "a proxy is not http://host[:port]", hint="without user name, password and path")
    return url


def _tls_context(ca_file: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except OSError as error:
        raise ConfigError(
            "ca-file-unreadable",
            f"the CA file {ca_file} cannot be used: {error.strerror or 'no PEM'}",
            hint="it holds the PEM certificate of the CA that signed the provider's TLS certificate",
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
