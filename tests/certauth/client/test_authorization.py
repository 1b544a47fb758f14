"""The authorization code flow: whatever else knocks at the callback, only the right answer ends the login."""

from __future__ import annotations

import http.client
import queue
import re
import socket
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from certauth.client.authorization import Errand, id_token
from certauth.client.browser import Browser
from certauth.client.http import Client, trust
from certauth.client.metadata import LoginIssuer
from certauth.client.provider import Provider
from certauth.client.waiting import Screen, Stopwatch
from certauth.errors import AnswerError, CertauthError, Refused, UnavailableError, UsageError
from tests.demo.stage import free_port
from tests.simulator.hostile_signer import HostileSigner, Raw

Act = Callable[[str, dict[str, str]], None]


def get(url: str, headers: dict[str, str] | None = None) -> int:
    """GET without a proxy; the status."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, headers=headers or {}), timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


class Login:
    """One login at the simulator, with a test playing the browser."""

    def __init__(self, signer: HostileSigner) -> None:
        self.signer = signer
        self.issuer = LoginIssuer(id="campus", url=f"{signer.url}/idp", client_id="cli", scopes=("openid", "email"))

    def run(self, act: Act | None, *, timeout: float = 10, remote: bool = False, **browser: Any) -> str:
        """Log in; ``act`` gets the redirect URI and the query of the authorization address."""
        self.said: list[str] = []
        failures: queue.Queue[BaseException] = queue.Queue()

        def play(redirect_uri: str, query: dict[str, str]) -> None:
            try:
                assert act is not None
                act(redirect_uri, query)
            except BaseException as error:
                failures.put(error)

        def tell(text: str) -> None:
            self.said.append(text)
            found = re.search(r"https://\S+/idp/authorize\?(\S+)", text)
            if found and act is not None:
                query = {name: values[0] for name, values in parse_qs(found[1]).items()}
                threading.Thread(target=play, args=(query["redirect_uri"], query), daemon=True).start()

        browser.setdefault("enabled", False)
        with Client(trust(roots=self.signer.ca_file.read_bytes(), system=False)) as client:
            try:
                return id_token(
                    client,
                    self.issuer,
                    nonce="the-nonce",
                    browser=Browser(timeout=timeout, **browser),
                    window=False,
                    remote=remote,
                    screen=Screen(tell=tell),
                    stopwatch=Stopwatch(),
                )
            finally:
                if not failures.empty():
                    raise failures.get()

    def answer(self, query: dict[str, str], **changes: str | None) -> str:
        """The query of a good answer, changed."""
        good: dict[str, str | None] = {"code": "the-code", "state": query["state"], "iss": self.issuer.url}
        return urlencode({name: value for name, value in (good | changes).items() if value is not None})


@pytest.fixture
def login(signer: HostileSigner) -> Login:
    """A login to play with."""
    return Login(signer)


def test_requests_without_our_state_are_answered_and_ignored(login: Login):
    """A favicon, a port scanner, another page's attempt or a doubled state changes nothing; the login goes on."""

    def act(redirect: str, query: dict[str, str]) -> None:
        base = redirect.removesuffix("/callback")
        assert get(f"{base}/favicon.ico") == 404
        assert get(redirect) == 404
        assert get(f"{redirect}?{login.answer(query, state='guess', code='evil')}") == 404
        assert get(f"{redirect}?{login.answer(query, state='ünïcode', code='evil')}") == 404
        assert get(f"{redirect}?{login.answer(query, code='evil')}&state=x") == 404
        assert get(f"{base}/other?{login.answer(query, code='evil')}") == 404
        assert get(f"{redirect}?{'&'.join('a=1' for _ in range(50))}&{login.answer(query, code='evil')}") == 404
        raw = socket.create_connection((urlsplit(redirect).hostname or "", urlsplit(redirect).port or 0))
        raw.close()
        assert get(f"{redirect}?{login.answer(query)}") == 200

    assert login.run(act) == "an.id.token"
    body = next(body for _, path, _, body in login.signer.seen if path == "/idp/token")
    assert parse_qs(body.decode())["code"] == ["the-code"]


def test_another_host_name_is_not_us(login: Login):
    """A page that reaches the port under its own name (DNS rebinding) is refused, even with the right state."""

    def act(redirect: str, query: dict[str, str]) -> None:
        assert get(f"{redirect}?{login.answer(query, code='evil')}", {"host": "evil.example"}) == 404
        assert get(f"{redirect}?{login.answer(query)}") == 200

    assert login.run(act) == "an.id.token"


def test_the_page_gives_nothing_away(login: Login):
    """What the browser shows contains no code and sends no referrer."""
    seen: list[tuple[str, dict[str, str]]] = []

    def act(redirect: str, query: dict[str, str]) -> None:
        parts = urlsplit(redirect)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
        connection.request("GET", f"/callback?{login.answer(query)}")
        response = connection.getresponse()
        seen.append((response.read().decode(), dict(response.getheaders())))

    login.run(act)
    page, headers = seen[0]
    assert "the-code" not in page
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["content-security-policy"] == "default-src 'none'"
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("changes", "kind", "code"),
    [
        ({"iss": "https://evil.example"}, AnswerError, "wrong-issuer"),
        ({"iss": None}, AnswerError, "wrong-issuer"),
        ({"code": None}, AnswerError, "bad-answer"),
        ({"code": None, "error": "access_denied"}, Refused, "login-refused"),
        ({"code": None, "error": "x", "error_description": "you pressed no"}, Refused, "login-refused"),
    ],
)
def test_answers_that_are_not_a_code_from_this_provider(
    login: Login, changes: dict[str, str | None], kind: type[CertauthError], code: str
):
    """A mixed-up issuer (RFC 9207), no code, or a refusal ends the login with its own code; no code is redeemed."""
    with pytest.raises(kind) as caught:
        login.run(lambda redirect, query: (get(f"{redirect}?{login.answer(query, **changes)}"), None)[1])
    assert caught.value.code == code
    assert (changes.get("error_description") or changes.get("error") or "") in caught.value.message
    assert not any(path == "/idp/token" for _, path, _, _ in login.signer.seen)


def test_a_provider_that_does_not_name_itself_need_not(login: Login):
    """Without RFC 9207 at the provider a missing iss is accepted, but a wrong one never is."""
    login.signer.lies["/idp/.well-known/openid-configuration"] = lambda answer: {
        name: value for name, value in answer.items() if not name.startswith("authorization_response")
    }
    assert login.run(lambda redirect, query: (get(f"{redirect}?{login.answer(query, iss=None)}"), None)[1]) == "an.id.token"
    with pytest.raises(AnswerError):
        login.run(lambda redirect, query: (get(f"{redirect}?{login.answer(query, iss='https://x')}"), None)[1])


@pytest.mark.parametrize(
    "change",
    [
        {"issuer": "https://evil.example"},
        {"token_endpoint": "http://127.0.0.1/token"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": None},
    ],
)
def test_discovery_must_describe_the_issuer_asked_for(login: Login, change: dict[str, Any]):
    """A discovery document of another issuer, or with endpoints that are not https, is refused before any browser opens."""
    login.signer.lies["/idp/.well-known/openid-configuration"] = lambda answer: answer | change
    with pytest.raises(AnswerError):
        login.run(None)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Raw(status=400, pieces=(b'{"error":"invalid_grant"}',)), ": invalid_grant"),
        (Raw(status=400, pieces=(b"no",)), "did not accept the code of the login"),
    ],
)
def test_a_code_that_is_not_accepted(login: Login, answer: Raw, said: str):
    """A refusal at the token endpoint names the provider's error and nothing of what was sent."""
    login.signer.lies["/idp/token"] = lambda _: answer
    with pytest.raises(Refused) as caught:
        login.run(lambda redirect, query: (get(f"{redirect}?{login.answer(query)}"), None)[1])
    assert caught.value.message.endswith(said)
    assert "the-code" not in caught.value.message


def test_a_token_answer_without_an_id_token(login: Login):
    """A provider that sends no ID token is told apart from one that refuses."""
    login.signer.lies["/idp/token"] = lambda _: {"access_token": "x"}
    with pytest.raises(AnswerError):
        login.run(lambda redirect, query: (get(f"{redirect}?{login.answer(query)}"), None)[1])


def test_nobody_logs_in(login: Login):
    """The wait ends by itself, and the port is free again."""
    with pytest.raises(UnavailableError) as caught:
        login.run(None, timeout=0.3)
    assert caught.value.code == "login-timeout"


def test_a_fixed_port_and_one_that_is_taken(login: Login):
    """A chosen port is used; if something else has it, the user is told."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UsageError) as caught:
            login.run(None, port=taken.getsockname()[1])
        assert caught.value.code == "port-taken"
    port = free_port()
    seen: list[str] = []

    def act(redirect: str, query: dict[str, str]) -> None:
        seen.append(redirect)
        get(f"{redirect}?{login.answer(query)}")

    login.run(act, port=port)
    assert seen == [f"http://127.0.0.1:{port}/callback"]


def test_a_browser_command_gets_the_address_as_its_last_argument(login: Login):
    """A headless browser can be named, as the demo does."""
    assert login.run(None, command=f"{sys.executable} -m tests.simulator.hostile_signer") == "an.id.token"


def test_a_browser_command_that_stays_open_is_left_alone(login: Login):
    """A command that is still running after the login is the user's browser, which must not be closed."""
    code = "import sys, time; from tests.simulator.hostile_signer import visit; visit(sys.argv[1]); time.sleep(2.5)"
    assert login.run(None, command=f'{sys.executable} -c "{code}"') == "an.id.token"


@pytest.mark.parametrize("command", ["", "/no/such/browser", "'unclosed"])
def test_a_browser_command_that_cannot_run(login: Login, command: str):
    """A browser command that is none is a usage mistake."""
    with pytest.raises(UsageError) as caught:
        login.run(None, command=command)
    assert caught.value.code == "bad-browser-command"


def test_a_browser_command_that_fails_ends_the_wait(login: Login):
    """Nobody waits three minutes for a browser that crashed."""
    with pytest.raises(Refused) as caught:
        login.run(None, command=f'{sys.executable} -c "raise SystemExit(7)"')
    assert caught.value.code == "browser-failed"
    assert "7" in caught.value.message


def test_over_ssh_the_tunnel_and_the_other_way_are_named(login: Login):
    """Over SSH the user reads which port to forward, and how to do without, besides the address."""
    login.run(lambda redirect, query: (get(f"{redirect}?{login.answer(query)}"), None)[1], remote=True)
    port = urlsplit(parse_qs(urlsplit(login.said[0].split()[-1]).query)["redirect_uri"][0]).port
    assert f"ssh -L {port}:127.0.0.1:{port}" in login.said[1]
    assert "--paste" in login.said[1]


def test_the_address_is_shown_and_nothing_of_it_is_in_a_repr(login: Login):
    """State and verifier are what an attacker would need; neither is in what Python prints of a login under way."""
    provider = Provider(
        issuer="https://x", authorization="https://x/a?b=c", token="https://x/t", device_authorization=None, names_itself=True
    )
    errand = Errand(provider=provider, client_id="c", redirect_uri="http://127.0.0.1:1/callback", scopes=("openid",), nonce="n")
    assert errand.url.startswith("https://x/a?b=c&response_type=code&")
    assert errand.state not in repr(errand)
    assert errand.verifier not in repr(errand)
    assert errand.verifier not in errand.url
