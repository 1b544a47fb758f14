"""Paste-back: the browser runs elsewhere, and the user brings the address at which it ended.

The provider sends the browser to a port of 127.0.0.1 at which nobody listens. The page cannot be shown, but the address bar has
what we need. It is checked like an answer that came by itself: this redirect, our state, this provider.
"""

from __future__ import annotations

import secrets
from urllib.parse import urlsplit

from certauth.client.attempt import Attempt, Proven
from certauth.client.authorization import CALLBACK_PATH, Errand, answer_of, code_of, redeem
from certauth.client.metadata import LoginIssuer
from certauth.client.provider import discover
from certauth.errors import UsageError

_FIRST_PORT, _PORTS = 49152, 16384  # dynamic ports (RFC 6335 §6)
_ATTEMPTS = 3
_LIMIT = 16_384


def paste(attempt: Attempt, issuer: LoginIssuer) -> Proven:
    """Let the user log in anywhere and paste the address back; ``UsageError`` (``bad-paste``) after three that do not fit."""
    port = attempt.wishes.browser.port or _FIRST_PORT + secrets.randbelow(_PORTS)
    redirect_uri = f"http://127.0.0.1:{port}{CALLBACK_PATH}"
    with attempt.others() as client:
        errand = Errand(
            provider=discover(client, issuer.url),
            client_id=issuer.client_id,
            redirect_uri=redirect_uri,
            scopes=issuer.scopes,
            nonce=attempt.bound.nonce(),
        )
        attempt.screen.tell(
            f"Open this address in a browser, on any machine, and log in:\n\n  {errand.url}\n\n"
            f"At the end the browser cannot show {redirect_uri}…; that is as it should be.\n"
            "Copy the whole address from its address bar and paste it here."
        )
        for _ in range(_ATTEMPTS):
            line = attempt.screen.ask("address: ").strip()
            if not line:
                break
            answer = answer_of(line, urlsplit(redirect_uri).netloc, errand.state) if len(line) <= _LIMIT else None
            if answer is not None:
                token = redeem(client, errand, code_of(answer, errand.provider))
                return attempt.id_token(token, issuer)
            attempt.screen.tell(f"That is not the address of this login: it must begin with {redirect_uri}?")
    raise UsageError(
        "bad-paste",
        "no address of this login was pasted",
        hint="run the command again, and paste the address at which the browser ends",
    )
