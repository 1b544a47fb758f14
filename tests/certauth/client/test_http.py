"""The one way to talk to servers: what is said of connections, statuses, problems and addresses."""

from __future__ import annotations

import socket

import pytest

from certauth.client import http
from certauth.client.http import Answer, Client, origin, origin_of, problem, trust
from certauth.errors import AnswerError, ChainError, LoginRequired, Refused, UnavailableError, UsageError
from tests.demo.stage import free_port
from tests.simulator.hostile_signer import HostileSigner, Raw


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("als.example", "https://als.example"),
        ("https://ALS.example/", "https://als.example"),
        ("https://als.example:443", "https://als.example"),
        ("https://als.example:8443", "https://als.example:8443"),
        ("https://[::1]:8443", "https://[::1]:8443"),
    ],
)
def test_one_origin_has_one_spelling(text: str, meant: str):
    """Two ways of writing one address are the same text afterwards."""
    assert origin(text) == meant


def test_an_address_beyond_reason_is_a_mistake():
    """What the HTTP library does not take for a URL is not sent anywhere."""
    with Client(trust(roots=None, system=True)) as client, pytest.raises(UsageError) as caught:
        client.send("GET", "https://127.0.0.1/" + "x" * 100_000)
    assert caught.value.code == "bad-url"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "http://als.example",
        "https://a@als.example",
        "https://als.example/path",
        "https://als.example/?q",
        "https://x:y",
        "ftp://x",
        "https://x:99999",
        "not a host",
        "https://-x.example",
        "https://als\u00e4.example",
    ],
)
def test_what_is_not_the_address_of_a_server(text: str):
    """Plain http, credentials, paths and nonsense are refused."""
    with pytest.raises(UsageError) as caught:
        origin(text)
    assert caught.value.code == "bad-url"


def test_the_origin_of_an_address_with_a_path():
    """The origin of a URL leaves out the rest; it must be https."""
    assert origin_of("https://als.example:8443/data/x?y#z") == "https://als.example:8443"
    for url in ("http://als.example/x", "/just/a/path", "javascript:alert(1)"):
        with pytest.raises(UsageError):
            origin_of(url)


def answer(status: int, body: bytes = b"", content_type: str = "application/problem+json", retry: int | None = None) -> Answer:
    """An answer as read."""
    return Answer(status=status, content_type=content_type, body=body, retry_after=retry)


@pytest.mark.parametrize(
    ("given", "kind", "code", "message"),
    [
        (answer(403, b'{"code":"right-not-held","detail":"no"}'), Refused, "right-not-held", "no"),
        (answer(401, b'{"code":"certificate-expired","detail":"old"}'), LoginRequired, "certificate-expired", "old"),
        (answer(503, b'{"code":"busy","detail":"later"}'), UnavailableError, "busy", "later"),
        (answer(500, b'{"title":"oops"}'), AnswerError, "http-500", "oops"),
        (answer(404, b"not found", "text/plain"), Refused, "http-404", "https://x answered with status 404"),
        (answer(400, b"not json"), Refused, "http-400", "https://x answered with status 400"),
        (answer(400, b'{"code":"NOT A CODE","detail":7}'), Refused, "http-400", "https://x answered with status 400"),
    ],
)
def test_problems_become_errors(given: Answer, kind: type[Exception], code: str, message: str):
    """The class of the error, hence the exit status, follows the HTTP status and the code."""
    error = problem(given, "https://x/y")
    assert type(error) is kind
    assert (error.code, error.message) == (code, message)


def test_what_a_problem_says_is_cut_short():
    """A hostile server's text does not fill the terminal, and its waiting time must be a sane number."""
    error = problem(
        answer(429, b'{"code":"x","detail":"%s","hint":"%s","retry_after":-5}' % (b"a" * 9999, b"b" * 9999), retry=3),
        "https://x",
    )
    assert (len(error.message), len(error.hint or ""), error.retry_after) == (500, 300, 3)
    assert problem(answer(429, b'{"retry_after":"soon"}'), "https://x").retry_after is None


def get(signer: HostileSigner, path: str = "/data/hello", **limits: float) -> Answer:
    """GET from the simulator."""
    with Client(trust(roots=signer.ca_file.read_bytes(), system=False), **limits) as client:  # type: ignore[arg-type]  # two numbers
        return client.send("GET", signer.url + path)


def test_an_answer_is_read_with_its_headers(signer: HostileSigner):
    """Status, media type, body and Retry-After arrive; a Retry-After that is a date is none."""
    signer.lies["/data/hello"] = lambda _: Raw(
        status=503, content_type="Text/Plain; charset=x", headers={"retry-after": "7"}, pieces=(b"abc",)
    )
    assert get(signer) == Answer(status=503, content_type="text/plain", body=b"abc", retry_after=7)
    signer.lies["/data/hello"] = lambda _: Raw(status=503, headers={"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"})
    assert get(signer).retry_after is None
    assert signer.seen[0][2]["accept-encoding"] == "identity"


def test_a_slow_answer_ends(signer: HostileSigner):
    """A server that drips bytes for ever is left, whatever the timeout of a single read."""
    signer.lies["/data/hello"] = lambda _: Raw(pieces=(b"x",), repeat=10_000)
    with pytest.raises(UnavailableError) as caught:
        get(signer, seconds=-1.0)
    assert caught.value.code == "timeout"


def test_a_server_that_says_nothing_times_out(monkeypatch: pytest.MonkeyPatch):
    """A port that accepts and stays silent is unavailable, not a hang."""
    monkeypatch.setattr(http, "_TIMEOUT", 0.2)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        Client(trust(roots=None, system=False)) as client,
        pytest.raises(UnavailableError) as caught,
    ):
        client.send("GET", f"https://127.0.0.1:{silent.getsockname()[1]}/")
    assert caught.value.code == "timeout"


def test_nothing_listens_and_no_such_name():
    """A closed port and an unknown name are unreachable, each in its own words."""
    port = free_port()
    with Client(trust(roots=None, system=False)) as client, pytest.raises(UnavailableError) as caught:
        client.send("GET", f"https://127.0.0.1:{port}/")
    assert caught.value.code == "unreachable"
    error = http._connection_error("https://nowhere.example", "[Errno -2] Name or service not known")
    assert error.code == "name-unknown"


def test_a_refused_client_certificate_is_not_a_lost_connection():
    """The alert with which a server refuses a certificate is told as a refusal."""
    for said in ("[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required", "sslv3 alert bad certificate"):
        assert isinstance(http._connection_error("https://x", said), Refused)
    assert isinstance(http._connection_error("https://x", "EOF occurred"), UnavailableError)
    assert isinstance(http._connection_error("https://x", "CERTIFICATE_VERIFY_FAILED"), ChainError)


def test_an_address_that_is_no_url():
    """A host that cannot be one is a usage mistake."""
    with Client(trust(roots=None, system=False)) as client, pytest.raises(UsageError):
        client.send("GET", "https://[x/")
    with Client(trust(roots=None, system=False)) as client, pytest.raises(UsageError):
        client.send("GET", "https://x\x00.example/")


def test_a_ca_file_must_hold_certificates():
    """Text that is no PEM is refused before anything is dialled."""
    for pem in (b"nothing", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "ü".encode()):
        with pytest.raises(UsageError) as caught:
            trust(roots=pem, system=False)
        assert caught.value.code == "bad-ca-file"


def test_proxies_are_not_asked_for_this_machine(signer: HostileSigner, monkeypatch: pytest.MonkeyPatch):
    """A proxy of the environment is not used for loopback, and is for other hosts."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert get(signer).body == b"hello\n"
    with Client(trust(roots=None, system=False)) as client, pytest.raises(UnavailableError):
        client.send("GET", "https://certauth.invalid/")
