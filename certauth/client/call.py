"""One HTTPS request to a protected service, with the user's certificate and a token; bodies are streamed in both directions."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from certauth.client.auth import context
from certauth.client.http import ANSWER_LIMIT, Answer, Client, RequestBody, origin_of, problem, read
from certauth.client.profile import Profile
from certauth.clock import Clock
from certauth.errors import AnswerError, CertauthError, LoginRequired, StoreError

_PIECE = 64 * 1024
_ERROR_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What to send. ``content`` is whole, or a file to stream of which ``length`` bytes are announced."""

    method: str
    url: str
    token: str | None
    content: bytes | BinaryIO | None = None
    length: int | None = None
    content_type: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Called:
    """What came back. The body went to the sink."""

    status: int
    content_type: str
    size: int


def call(profile: Profile, wanted: Call, sink: BinaryIO, *, ca: bytes | None, clock: Clock) -> Called:
    """Make the request under the facility's roots and write the body of a successful answer to ``sink``.

    Raises ``Refused`` (or ``LoginRequired``) with the service's code if it denies, ``UnavailableError`` if it is not there or
    busy, ``AnswerError`` for a redirect (not followed: it would carry the token elsewhere) or a failure of the service.
    """
    with (
        Client(context(profile, ca=ca, clock=clock)) as client,
        client.stream(wanted.method, wanted.url, headers=_headers(wanted), content=_content(wanted)) as response,
    ):
        if response.is_redirect:
            raise AnswerError(
                "redirected",
                f"{origin_of(wanted.url)} wants to send the request elsewhere",
                hint="call the new address yourself if you trust it",
            )
        if response.status_code >= 400:
            raise _denied(read(response, limit=ANSWER_LIMIT, seconds=_ERROR_SECONDS), wanted, profile)
        size = 0
        for piece in response.iter_raw():
            sink.write(piece)
            size += len(piece)
        sink.flush()
        return Called(status=response.status_code, content_type=response.headers.get("content-type", ""), size=size)


def _headers(wanted: Call) -> Mapping[str, str]:
    headers = {"accept": "*/*"}
    if wanted.token is not None:
        headers["authorization"] = f"Bearer {wanted.token}"
    if wanted.content_type is not None:
        headers["content-type"] = wanted.content_type
    if wanted.length is not None:
        headers["content-length"] = str(wanted.length)
    return headers


def _content(wanted: Call) -> bytes | RequestBody | None:
    content = wanted.content
    return content if content is None or isinstance(content, bytes) else _pieces(content)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(_PIECE):
        yield piece


def _denied(answer: Answer, wanted: Call, profile: Profile) -> CertauthError:
    error = problem(answer, wanted.url)
    if isinstance(error, LoginRequired):
        # The hint is the command to run here, not whatever the service would like the user to type.
        return LoginRequired(error.code, error.message, hint=profile.login_command)
    if wanted.token is None and answer.status in {401, 403} and error.hint is None:
        error.hint = "no token was sent; name one with --token"
    return error


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """A file to write to that becomes ``path`` only if the block succeeds; readable by the user alone until they change it."""
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            try:
                yield file  # type: ignore[misc]  # the wrapper has every method of BinaryIO
                file.flush()
                os.fsync(file.fileno())
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
    except OSError as error:
        hint = "make room, or name a file where you may write"
        raise StoreError("cannot-write", f"cannot write {path}: {error.strerror}", hint=hint) from error
