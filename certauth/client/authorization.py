"""A person logs in at an identity provider in a browser: authorization code with PKCE, answered on 127.0.0.1 (RFC 8252).

What stops what: ``state`` ties the answer to this login (another page cannot finish it), PKCE S256 ties the code to this
process (RFC 7636), the ``iss`` of the answer ties it to this provider (mix-up, RFC 9207), the ``Host`` check keeps other sites'
pages out (DNS rebinding), and the nonce, made elsewhere, ties the ID token to the key being certified. A request without our
state is answered and ignored: browsers and port scanners make some, and a login must not die of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import queue
import secrets
import subprocess
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlencode, urlsplit

from certauth.client.browser import Browser, check_alive, opened
from certauth.client.http import Client, text_member
from certauth.client.metadata import LoginIssuer
from certauth.client.provider import Denial, Provider, discover, send_form
from certauth.client.waiting import Screen, Stopwatch, Waiting
from certauth.encoding import b64url
from certauth.errors import AnswerError, Refused, UsageError

__all__ = ["Browser", "Errand", "answer_of", "code_of", "id_token", "redeem"]

CALLBACK_PATH = "/callback"
TOKEN_LIMIT = 16_384
_TICK = 0.2
_PAGE = (
    b"<!doctype html><html lang=en><meta charset=utf-8><title>certauth</title>"
    b"<p>certauth has received the answer. You can close this window and go back to the terminal.</p></html>"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """One login at a provider: what the browser is sent there with, and what its answer is compared with."""

    provider: Provider
    client_id: str
    redirect_uri: str
    scopes: tuple[str, ...]
    nonce: str
    state: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48), repr=False)

    @property
    def url(self) -> str:
        """The address to open (RFC 6749 §4.1.1, RFC 7636 §4.3)."""
        query = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": self.redirect_uri,
            "scope": " ".join(self.scopes),
            "state": self.state,
            "nonce": self.nonce,
            "code_challenge": b64url(hashlib.sha256(self.verifier.encode()).digest()),
            "code_challenge_method": "S256",
        }
        return f"{self.provider.authorization}{'&' if '?' in self.provider.authorization else '?'}{urlencode(query)}"


def id_token(
    client: Client,
    issuer: LoginIssuer,
    *,
    nonce: str,
    browser: Browser,
    window: bool,
    remote: bool,
    screen: Screen,
    stopwatch: Stopwatch,
) -> str:
    """Let the user log in at ``issuer`` and return the ID token, unverified: the signer is its verifier.

    ``window``: a browser may be opened here; ``remote``: the user may sit elsewhere. Raises ``Refused`` if the provider or the
    user says no, ``UnavailableError`` after ``browser.timeout`` seconds, and ``AnswerError`` for answers that do not fit.
    """
    provider = discover(client, issuer.url)
    state = secrets.token_urlsafe(32)
    with _listening(state, browser.port) as (redirect_uri, answers):
        errand = Errand(
            provider=provider,
            client_id=issuer.client_id,
            redirect_uri=redirect_uri,
            scopes=issuer.scopes,
            nonce=nonce,
            state=state,
        )
        screen.tell(f"To log in, open this address in a browser on this machine:\n\n  {errand.url}\n")
        if remote and browser.command is None:
            port = urlsplit(redirect_uri).port
            screen.tell(
                f"If your browser runs elsewhere, first run there: ssh -L {port}:127.0.0.1:{port} <this machine>\n"
                "or stop this with Ctrl-C and log in with --paste."
            )
        waiting = Waiting(seconds=browser.timeout, what="for the browser", screen=screen, stopwatch=stopwatch)
        with opened(errand.url, browser, window=window) as process:
            answer = _wait(answers, process, waiting)
    return redeem(client, errand, code_of(answer, provider))


# --- the answer on 127.0.0.1 -----------------------------------------------------------------------------------------


class _Server(ThreadingHTTPServer):
    """Listens on 127.0.0.1 and remembers whose answer it waits for."""

    daemon_threads = True

    def __init__(self, state: str, port: int) -> None:
        self.state = state
        self.answers: queue.Queue[Mapping[str, str]] = queue.Queue()
        super().__init__(("127.0.0.1", port), _Callback)
        self.host = f"127.0.0.1:{self.server_address[1]}"


class _Callback(BaseHTTPRequestHandler):
    """Takes the one GET that carries our state; everything else gets a 404 and changes nothing."""

    server: _Server
    server_version = "certauth"
    sys_version = ""
    timeout = 10

    def do_GET(self) -> None:
        answer = None
        if self.headers.get("host") == self.server.host:
            answer = answer_of(f"http://{self.server.host}{self.path}", self.server.host, self.server.state)
        self.send_response(404 if answer is None else 200)
        self.send_header("content-type", "text/html; charset=utf-8")
        self.send_header("content-security-policy", "default-src 'none'")
        self.send_header("referrer-policy", "no-referrer")
        self.send_header("cache-control", "no-store")
        self.send_header("connection", "close")
        self.end_headers()
        if answer is not None:
            self.wfile.write(_PAGE)
            self.server.answers.put(answer)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class names it so
        """Say nothing: the request line holds the code."""


def answer_of(url: str, host: str, state: str) -> Mapping[str, str] | None:
    """What a redirect to ``http://<host>/callback`` says, if it is one and carries our ``state`` exactly once."""
    try:
        parts = urlsplit(url)
        values = parse_qs(parts.query, max_num_fields=20)
    except ValueError:
        return None
    given = values.get("state", ())
    if (parts.scheme, parts.netloc, parts.path) != ("http", host, CALLBACK_PATH) or len(given) != 1:
        return None
    if not hmac.compare_digest(given[0].encode("utf-8", "replace"), state.encode()):
        return None
    # A parameter given twice is ambiguous (RFC 6749 §3.1) and treated as absent.
    return {name: texts[0] for name, texts in values.items() if len(texts) == 1}


@contextlib.contextmanager
def _listening(state: str, port: int) -> Iterator[tuple[str, queue.Queue[Mapping[str, str]]]]:
    """Serve the callback while the block runs; yields the redirect URI and the queue of answers with our state."""
    try:
        server = _Server(state, port)
    except OSError as error:
        raise UsageError(
            "port-taken", f"port {port} of 127.0.0.1 cannot be used: {error.strerror}", hint="leave out --port"
        ) from error
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://{server.host}{CALLBACK_PATH}", server.answers
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _wait(
    answers: queue.Queue[Mapping[str, str]], process: subprocess.Popen[bytes] | None, waiting: Waiting
) -> Mapping[str, str]:
    """The answer; short waits in between keep Ctrl-C working and notice a browser command that failed."""
    while True:
        with contextlib.suppress(queue.Empty):
            return answers.get(timeout=max(0.0, min(waiting.left, _TICK)))
        check_alive(process)
        waiting.tick()


def code_of(answer: Mapping[str, str], provider: Provider) -> str:
    """The authorization code of an answer, after the checks of RFC 9207 §2.4."""
    named = answer.get("iss")
    if (named is None and provider.names_itself) or (named is not None and named != provider.issuer):
        raise AnswerError(
            "wrong-issuer",
            "the login was answered by another identity provider than it was begun at",
            hint="begin again, and log in at the provider that the address names",
        )
    if "error" in answer:
        said = answer.get("error_description") or answer["error"]
        raise Refused("login-refused", f"the identity provider refused the login: {said[:200]}", hint="run the command again")
    code = answer.get("code")
    if not code:
        raise AnswerError(
            "bad-answer", "the identity provider answered without a code", hint="tell those who run the identity provider"
        )
    return code


def redeem(client: Client, errand: Errand, code: str) -> str:
    """Exchange the code for the ID token (RFC 6749 §4.1.3)."""
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": errand.redirect_uri,
        "client_id": errand.client_id,
        "code_verifier": errand.verifier,
    }
    answer = send_form(client, errand.provider.token, form)
    if isinstance(answer, Denial):
        said = f": {answer.error}" if answer.error else ""
        raise Refused(
            "login-refused",
            f"the identity provider did not accept the code of the login{said}",
            hint="run the command again; if it stays, tell those who run the identity provider",
        )
    return text_member(answer, "id_token", errand.provider.token, limit=TOKEN_LIMIT)
