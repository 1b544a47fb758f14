"""Signer-mediated login: the signer is the provider's client, the user finishes in any browser on any machine.

The login is begun with the certification request, so the signer binds what the provider says to this key. Whoever asks for the
result must know a secret that never left this process; the signer was told its hash. The user types a code and compares host
and key: a login that somebody else began shows another host and another key.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping

from certauth.client.attempt import Attempt, Proven
from certauth.client.browser import check_alive, ended_once, opened
from certauth.client.http import origin_of, text_member
from certauth.client.metadata import LoginIssuer
from certauth.client.waiting import Waiting
from certauth.encoding import b64url
from certauth.errors import AnswerError, CertauthError, UnavailableError
from certauth.identity.binding import short_fingerprint

_LOGIN = re.compile(r"[A-Za-z0-9_-]{1,128}")
_USER_CODE = re.compile(r"[A-Z0-9]{2,8}(-[A-Z0-9]{2,8}){0,3}")
_MOST_SECONDS = 3600
_MOST_INTERVAL = 60
_REPORT = "tell those who run the signer: a client does not accept this"


def mediated(attempt: Attempt, issuer: LoginIssuer, url: str) -> Proven:
    """Begin a login at ``url`` (the signer's ``logins``), let the user finish it, and return the proof that it is ours.

    Raises ``Refused`` if it was denied, ``UnavailableError`` (``login-timeout``) if nobody finished it, and ``AnswerError`` for
    answers that do not fit, among them a page that is not the signer's own (``wrong-signer``).
    """
    secret = b64url(secrets.token_bytes(32))
    host = attempt.situation.host
    wish: dict[str, object] = {
        "csr": attempt.csr,
        "issuer": issuer.id,
        "host": host,
        "secret_sha256": hashlib.sha256(secret.encode()).hexdigest(),
    }
    if attempt.wishes.invite is not None:
        wish["invite"] = attempt.wishes.invite
    if attempt.link is not None:
        wish["link"] = str(attempt.link)
    begun = attempt.signer.json("POST", url, value=wish)
    login = _matching(begun, "login", _LOGIN, url)
    code = _matching(begun, "user_code", _USER_CODE, url)
    page = text_member(begun, "verification_uri", url)
    if _origin(page) != attempt.metadata.signer:
        raise AnswerError("wrong-signer", f"{attempt.metadata.signer} wants the login finished elsewhere", hint=_REPORT)
    interval = seconds(begun, "interval", url, most=_MOST_INTERVAL)
    waiting = Waiting(
        seconds=min(attempt.wishes.browser.timeout, seconds(begun, "expires_in", url, most=_MOST_SECONDS)),
        what="for you to finish in the browser",
        screen=attempt.screen,
        stopwatch=attempt.stopwatch,
    )
    attempt.screen.tell(
        f"To log in, open this address in a browser, on any machine:\n\n  {page}\n\n"
        f"and type this code:  {code}\n\n"
        "Go on there only if the page shows\n\n"
        f"  host  {host}\n  key   {short_fingerprint(attempt.bound.spki)}\n"
        + (f"  link  {attempt.link}\n" if attempt.link is not None else "")
    )
    with opened(page, attempt.wishes.browser, window=attempt.situation.window) as process:
        ended = ended_once(process)
        while True:
            waiting.pause(interval, until=ended)
            check_alive(process)
            try:
                answer = attempt.signer.json("POST", f"{url}/{login}", value={"secret": secret})
            except UnavailableError as error:
                # Asked too often, or a moment without network: the login goes on at the signer meanwhile.
                interval = min(_MOST_INTERVAL, max(interval * 2, error.retry_after or 0))
                continue
            match text_member(answer, "state", url):
                case "ready":
                    return Proven(proof={"type": "login", "login": login, "secret": secret}, issuer=issuer.id)
                case "pending" | "confirmed":
                    interval = seconds(answer, "interval", url, most=_MOST_INTERVAL) if "interval" in answer else interval
                case _:
                    raise AnswerError("bad-answer", f"{attempt.metadata.signer} answers with an unknown state", hint=_REPORT)


def seconds(members: Mapping[str, object], name: str, url: str, *, most: int, default: int | None = None) -> float:
    """A number of seconds from 1 to ``most``, larger ones cut; ``AnswerError`` (``bad-answer``) for anything else."""
    value = members.get(name, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
        raise AnswerError("bad-answer", f"the answer of {origin_of(url)} has no usable {name!r}", hint=_REPORT)
    return float(min(max(value, 1), most))


def _matching(members: Mapping[str, object], name: str, form: re.Pattern[str], url: str) -> str:
    value = text_member(members, name, url, limit=200)
    if not form.fullmatch(value):
        raise AnswerError("bad-answer", f"the answer of {origin_of(url)} has no usable {name!r}", hint=_REPORT)
    return value


def _origin(page: str) -> str | None:
    try:
        return origin_of(page)
    except CertauthError:
        return None
