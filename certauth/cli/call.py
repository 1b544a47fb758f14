"""``certauth call``."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import BinaryIO

import click

from certauth.cli import options
from certauth.cli.output import Result, command, progress, wants_json
from certauth.client.call import Call, Called, replaced
from certauth.client.call import call as make_call
from certauth.client.http import origin_of
from certauth.client.profile import Profile
from certauth.client.sources import discover, read_token
from certauth.clock import system_clock
from certauth.errors import AnswerError, UsageError

_SHOWN = 16 * 1024 * 1024


@command(
    example="certauth call GET https://data.als.example/data/run7/frame1 --token run7\n"
    "certauth call PUT https://data.als.example/data/run7/notes --token run7 --upload notes.txt"
)
@click.argument("method")
@click.argument("url")
@click.option(
    "--token", "source", metavar="NAME|FILE|-", help="Stored token, file, or - for standard input; default: WLCG discovery."
)
@click.option("--data", metavar="TEXT", help="Send this text as the body.")
@click.option("--upload", type=options.READABLE, help="Send this file as the body.")
@click.option("--content-type", metavar="TYPE", help="Media type of what is sent.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the answer's body to this file.")
@options.ca_option
@options.profile_option
def call(
    method: str,
    url: str,
    source: str | None,
    data: str | None,
    upload: Path | None,
    content_type: str | None,
    output: Path | None,
    ca_file: tuple[Path, ...],
    profile_name: str | None,
) -> Result | None:
    """Make one HTTPS request with your certificate and a token.

    The body of the answer goes to standard output as it is, or to the file of --output.
    Without --token the token is looked for in BEARER_TOKEN, BEARER_TOKEN_FILE and $XDG_RUNTIME_DIR/bt_u<uid>;
    if there is none, the request carries the certificate only.
    Exit status 3 if the service denies the request; its code and reason are shown.

    JSON: status, content_type, size, and body (text, or null if it is not) or output.
    """
    if not method.isascii() or not method.isalpha() or len(method) > 20:
        raise UsageError("usage", "the method is a word such as GET or PUT", hint="certauth call GET https://…")
    if data is not None and upload is not None:
        raise UsageError("usage", "--data and --upload exclude each other", hint="see the same command with --help")
    origin_of(url)
    profile = options.active(profile_name)
    token = _token(source, profile)
    ca = options.read_ca(ca_file)
    content = data.encode() if data is not None else None
    wanted = Call(method=method.upper(), url=url, token=token, content=content, content_type=content_type)
    if upload is None:
        return _run(profile, wanted, output=output, ca=ca)
    with upload.open("rb") as file:
        length = os.fstat(file.fileno()).st_size
        wanted = Call(method=wanted.method, url=url, token=token, content=file, length=length, content_type=content_type)
        return _run(profile, wanted, output=output, ca=ca)


def _token(source: str | None, profile: Profile) -> str | None:
    if source is None:
        return discover(os.environ)
    return read_token(source, profile=profile, environment=os.environ, stdin=sys.stdin.buffer)


def _run(profile: Profile, wanted: Call, *, output: Path | None, ca: bytes | None) -> Result | None:
    if output is not None:
        with replaced(output) as file:
            called = make_call(profile, wanted, file, ca=ca, clock=system_clock)
        text = f"{called.size} bytes written to {output}"
        return Result(data=_facts(called) | {"output": str(output)}, text=text)
    if not wants_json():
        called = make_call(profile, wanted, sys.stdout.buffer, ca=ca, clock=system_clock)
        if called.size == 0:
            progress(f"status {called.status}, no body")
        return None
    buffer: BinaryIO = _Bounded()
    called = make_call(profile, wanted, buffer, ca=ca, clock=system_clock)
    buffer.seek(0)
    try:
        body: str | None = buffer.read().decode()
    except UnicodeDecodeError:
        body = None
    return Result(data=_facts(called) | {"body": body}, text="")


class _Bounded(io.BytesIO):
    """Holds what is to be shown inside a JSON document, which is not the place for gigabytes."""

    def write(self, data: object, /) -> int:
        written = super().write(data)  # type: ignore[arg-type]  # bytes-like, as the base class wants it
        if self.tell() > _SHOWN:
            raise AnswerError("answer-too-large", "the answer is too large for --json", hint="use --output FILE")
        return written


def _facts(called: Called) -> dict[str, object]:
    return {"status": called.status, "content_type": called.content_type, "size": called.size}
