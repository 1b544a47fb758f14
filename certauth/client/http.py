"""One way to talk to signers, identity providers and services: HTTPS, no redirects, bounded answers, our errors.

A server is believed about nothing but its own answer: a redirect is not followed (it would carry a proof elsewhere), an
answer is read up to a limit of bytes and seconds, a compressed one is refused (a small one may unfold to gigabytes), and what
an error document says is shortened before it is shown.
"""

from __future__ import annotations

import contextlib
import json
import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

import httpx2

from certauth.encoding import strict_json
from certauth.errors import AnswerError, CertauthError, ChainError, LoginRequired, Refused, UnavailableError, UsageError

ANSWER_LIMIT = 1024 * 1024
ANSWER_SECONDS = 30.0
_TIMEOUT = httpx2.Timeout(15.0, connect=10.0)
_RETRIES = 3
_RETRY_WAIT = 5
_CODE = re.compile(r"[a-z][a-z0-9-]{0,63}")
_LOGIN_CODES = frozenset({"certificate-expired", "certificate-required", "certificate-missing", "certificate-revoked"})
_HOST = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?|[0-9a-f.]*:[0-9a-f:.]*")
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_LATER = "try again; if it stays, tell those who run the service"
_REPORT = "tell those who run the service: a client does not accept this"


class RequestBody(Protocol):
    """A request body that is sent in pieces."""

    def __iter__(self) -> Iterator[bytes]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An HTTP answer that was read completely. ``retry_after`` in seconds; ``dpop_nonce`` as in RFC 9449 §8."""

    status: int
    content_type: str
    body: bytes
    retry_after: int | None
    dpop_nonce: str | None = None


def trust(*, roots: bytes | None, system: bool) -> ssl.SSLContext:
    """A TLS client context that accepts servers under ``roots`` (PEM) and, if asked, the system's; names are always checked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if system:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if roots:
        try:
            context.load_verify_locations(cadata=roots.decode("ascii"))
        except (ssl.SSLError, ValueError) as error:
            raise UsageError(
                "bad-ca-file",
                "the CA file holds no PEM certificate that can be read",
                hint="name a file with -----BEGIN CERTIFICATE----- in it",
            ) from error
    return context


def origin(url: str) -> str:
    """``https://host[:port]`` of what a user or a server wrote; ``UsageError`` (``bad-url``) for anything else.

    The host is lower-cased and the default port dropped, so that two spellings of one origin are one text.
    """
    try:
        parts = urlsplit(url if "://" in url else f"https://{url}")
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    host = (parts.hostname or "").lower()
    if (
        parts.scheme != "https"
        or not _HOST.fullmatch(host)
        or "@" in parts.netloc
        or parts.path not in {"", "/"}
        or parts.query
        or parts.fragment
    ):
        raise UsageError(
            "bad-url", f"{url[:120]!r} is not the address of a server", hint="write https://host or https://host:port"
        )
    shown = f"[{host}]" if ":" in host else host
    return f"https://{shown}" if port in {None, 443} else f"https://{shown}:{port}"


def origin_of(url: str) -> str:
    """The origin of a URL with a path; ``UsageError`` (``bad-url``) unless it is https."""
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    return origin(f"{parts.scheme}://{parts.netloc}")


class Client:
    """HTTPS requests with one TLS context. A context manager; not for several threads."""

    def __init__(self, context: ssl.SSLContext, *, limit: int = ANSWER_LIMIT, seconds: float = ANSWER_SECONDS) -> None:
        self._limit = limit
        self._seconds = seconds
        self._context = context
        self._clients: dict[bool, httpx2.Client] = {}

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_exception: object) -> None:
        for client in self._clients.values():
            client.close()

    def _for(self, url: str) -> httpx2.Client:
        """Proxies of the environment are honoured, except for this machine itself."""
        proxies = urlsplit(origin_of(url)).hostname not in _LOOPBACK
        if proxies not in self._clients:
            self._clients[proxies] = httpx2.Client(
                verify=self._context,
                timeout=_TIMEOUT,
                trust_env=proxies,
                follow_redirects=False,
                headers={"accept-encoding": "identity", "user-agent": "certauth"},
            )
        return self._clients[proxies]

    @contextlib.contextmanager
    def stream(
        self, method: str, url: str, *, headers: Mapping[str, str], content: bytes | RequestBody | None = None
    ) -> Iterator[httpx2.Response]:
        """One request whose answer the caller reads; connection trouble is raised as our errors."""
        with _translated(url), self._for(url).stream(method, url, headers=dict(headers), content=content) as response:
            yield response

    def send(self, method: str, url: str, *, headers: Mapping[str, str] | None = None, content: bytes | None = None) -> Answer:
        """One request and its whole answer, whatever its status; ``AnswerError`` if it is a redirect, too large or too slow."""
        with self.stream(method, url, headers=headers or {}, content=content) as response:
            if response.is_redirect:
                raise AnswerError(
                    "redirected",
                    f"{origin_of(url)} wants to send the request elsewhere",
                    hint="use the address the facility published",
                )
            return read(response, limit=self._limit, seconds=self._seconds)

    def json(
        self, method: str, url: str, *, value: Mapping[str, object] | None = None, bearer: str | None = None
    ) -> dict[str, object]:
        """A JSON answer with a status below 300; any other status is raised as the problem it describes.

        ``bearer`` is sent as ``Authorization``.
        """
        headers = {"accept": "application/json, application/problem+json"}
        if bearer is not None:
            headers["authorization"] = f"Bearer {bearer}"
        content = None
        if value is not None:
            headers["content-type"] = "application/json"
            content = json.dumps(dict(value)).encode()
        answer = self.send(method, url, headers=headers, content=content)
        if answer.status >= 300:
            raise problem(answer, url)
        return json_object(answer.body, url)

    def post_again(self, url: str, value: Callable[[], Mapping[str, object]]) -> dict[str, object]:
        """POST what ``value`` makes, and again if the answer was lost or the service was busy.

        The value carries a request id. The signer commits an id once: with the same id a lost certificate is answered again
        from its record; a token is never kept there, so a lost one needs a new id.
        """
        attempt = 1
        while True:
            try:
                return self.json("POST", url, value=value())
            except UnavailableError as error:
                wait = attempt if error.retry_after is None else error.retry_after
                if attempt == _RETRIES or wait > _RETRY_WAIT or error.code in {"unreachable", "name-unknown"}:
                    raise
            time.sleep(wait)
            attempt += 1


def read(response: httpx2.Response, *, limit: int, seconds: float) -> Answer:
    """The body of ``response``, at most ``limit`` bytes and not longer than ``seconds``; ``AnswerError`` beyond either."""
    if response.headers.get("content-encoding", "identity") != "identity":
        raise AnswerError(
            "answer-encoded", f"{origin_of(str(response.url))} sent a compressed answer nobody asked for", hint=_REPORT
        )
    deadline = time.monotonic() + seconds
    body = bytearray()
    for piece in response.iter_raw():
        body += piece
        if len(body) > limit:
            raise AnswerError("answer-too-large", f"{origin_of(str(response.url))} sent more than {limit} bytes", hint=_REPORT)
        if time.monotonic() > deadline:
            raise UnavailableError(
                "timeout", f"{origin_of(str(response.url))} did not finish its answer in {seconds:.0f} s", hint=_LATER
            )
    retry = response.headers.get("retry-after", "")
    return Answer(
        status=response.status_code,
        content_type=response.headers.get("content-type", "").partition(";")[0].strip().lower(),
        body=bytes(body),
        retry_after=int(retry) if re.fullmatch(r"[0-9]{1,6}", retry) else None,
        dpop_nonce=response.headers.get("dpop-nonce"),
    )


def json_object(body: bytes, url: str) -> dict[str, object]:
    """``body`` as a JSON object; ``AnswerError`` (``bad-answer``) otherwise."""
    try:
        value = strict_json(body)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise AnswerError(
            "bad-answer",
            f"{origin_of(url)} did not answer with a JSON object",
            hint="is this the address of a signer? else tell those who run it",
        )
    return value


def text_member(members: Mapping[str, object], name: str, url: str, *, limit: int = 4096) -> str:
    """A non-empty text member of an answer; ``AnswerError`` (``bad-answer``) naming it otherwise."""
    value = members.get(name)
    if not isinstance(value, str) or not value or len(value) > limit:
        raise AnswerError("bad-answer", f"the answer of {origin_of(url)} has no usable {name!r}", hint=_REPORT)
    return value


def problem(answer: Answer, url: str) -> CertauthError:
    """The error an answer describes (RFC 9457), by its status: log in again, refused, or unavailable."""
    members: dict[str, object] = {}
    if answer.content_type == "application/problem+json":
        with contextlib.suppress(AnswerError):
            members = json_object(answer.body, url)
    code, detail, hint, wait = (members.get(name) for name in ("code", "detail", "hint", "retry_after"))
    code = code if isinstance(code, str) and _CODE.fullmatch(code) else f"http-{answer.status}"
    if not isinstance(detail, str) or not detail:
        title = members.get("title")
        detail = title if isinstance(title, str) and title else f"{origin_of(url)} answered with status {answer.status}"
    hint = hint[:300] if isinstance(hint, str) else None
    wait = wait if isinstance(wait, int) and 0 <= wait < 10**6 else answer.retry_after
    kind: type[CertauthError]
    if code in _LOGIN_CODES:
        kind = LoginRequired
    elif answer.status in {429, 502, 503, 504}:
        kind = UnavailableError
    elif 400 <= answer.status < 500:
        kind = Refused
    else:
        kind = AnswerError
    return kind(code, detail[:500], hint=hint, retry_after=wait)


@contextlib.contextmanager
def _translated(url: str) -> Iterator[None]:
    """Raise the HTTP library's errors as ours; its messages stay out, they may quote what was sent."""
    where = origin_of(url)
    try:
        yield
    except httpx2.TimeoutException as error:
        raise UnavailableError("timeout", f"{where} does not answer in time", hint=_LATER) from error
    except httpx2.InvalidURL as error:
        raise UsageError("bad-url", "the address is not a URL", hint="write https://host or https://host:port") from error
    except httpx2.HTTPError as error:
        raise _connection_error(where, str(error)) from error


def _connection_error(where: str, said: str) -> CertauthError:
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return ChainError(
            "server-untrusted",
            f"{where} does not show a certificate that leads to a root you trust for this name",
            hint="if the facility has its own CA, name its certificate with --ca-file",
        )
    if re.search(r"alert[ _](certificate|bad certificate|unknown ca|handshake failure)", said, re.IGNORECASE):
        return Refused("certificate-refused", f"{where} does not accept your certificate", hint="certauth status")
    if re.search(r"Name or service not known|nodename|getaddrinfo|Temporary failure in name resolution", said):
        return UnavailableError(
            "name-unknown",
            f"{where} has no address",
            hint="compare the name with what the facility published, and check your network",
        )
    if "refused" in said:
        return UnavailableError(
            "unreachable",
            f"{where} cannot be reached: nothing listens there",
            hint="compare host and port; if they are right, the server is not running",
        )
    return UnavailableError("connection-lost", f"the connection to {where} broke", hint=_LATER)
