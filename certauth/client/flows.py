"""Which way of logging in suits the situation, and what each is offered by.

named by the user                                            that one, or a refusal that names what is offered
no terminal, and a platform that vouches for programs        workload
a browser can be opened here, or a command or port is named  browser: authorization code, answered on 127.0.0.1
over SSH, or no browser here                                 mediated, else device, else the address to open by hand
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from certauth.client.assertion import assertion
from certauth.client.attempt import Attempt, Method, Proven, Situation, Wishes
from certauth.client.authorization import id_token
from certauth.client.device import device
from certauth.client.given import given
from certauth.client.mediated import mediated
from certauth.client.metadata import LoginIssuer, Metadata
from certauth.client.paste import paste
from certauth.client.workload import find, workload
from certauth.errors import UsageError

Value = TypeVar("Value")
_NEEDS: Mapping[Method, str] = {
    Method.BROWSER: "code",
    Method.PASTE: "code",
    Method.MEDIATED: "mediated",
    Method.DEVICE: "device",
}
"""What an issuer must offer for each interactive method."""


def prove(attempt: Attempt) -> Proven:
    """Obtain a proof of identity for the attempt's key, in the way the user named or the one that suits the situation.

    Raises ``UsageError`` (``flow-not-offered``, ``incomplete-wishes``) and the errors of each way.
    """
    method = choose(attempt.metadata, attempt.wishes, attempt.situation)
    wishes = attempt.wishes
    match method:
        case Method.WORKLOAD:
            return workload(attempt)
        case Method.TOKEN:
            return given(attempt, _present(wishes.token, "a token"))
        case Method.CODE:
            return Proven(proof={"type": "code", "code": _present(wishes.code, "a code")}, issuer="")
        case Method.KEY:
            key, principal = _present(wishes.key, "a key"), _present(wishes.principal, "a principal")
            return assertion(attempt, key, principal)
        case _:
            issuer = issuer_for(attempt.metadata, wishes.issuer, method)
            return _INTERACTIVE[method](attempt, issuer)


def choose(metadata: Metadata, wishes: Wishes, situation: Situation) -> Method:
    """The method to use; ``UsageError`` if several issuers could be meant or none offers a way."""
    if wishes.method is not None:
        return wishes.method
    if not situation.terminal and find(situation) is not None and any("workload" in one.kinds for one in metadata.issuers):
        return Method.WORKLOAD
    offered = metadata.issuer(wishes.issuer, lambda issuer: bool(issuer.flows)).flows
    browser = wishes.browser
    here = bool(browser.command or browser.port) or (browser.enabled and situation.window)
    if here and "code" in offered:
        return Method.BROWSER
    for method in (Method.MEDIATED, Method.DEVICE, Method.BROWSER):
        if _NEEDS[method] in offered:
            return method
    raise _not_offered(offered)


def issuer_for(metadata: Metadata, wanted: str | None, method: Method) -> LoginIssuer:
    """The issuer at which to log in with ``method``; ``UsageError`` (``flow-not-offered``) if it does not offer that."""
    needed = _NEEDS[method]
    issuer = metadata.issuer(wanted, lambda issuer: needed in issuer.flows)
    if needed not in issuer.flows:
        raise _not_offered(issuer.flows)
    return issuer


def _not_offered(offered: frozenset[str]) -> UsageError:
    flags = [f"--{method}" for method, needed in _NEEDS.items() if needed in offered]
    return UsageError(
        "flow-not-offered",
        "this signer does not offer this way of logging in",
        hint=f"it offers: {', '.join(flags)}"
        if flags
        else "it offers none to people; use --workload, --token, --key or --code",
    )


def _code(attempt: Attempt, issuer: LoginIssuer) -> Proven:
    with attempt.others() as client:
        token = id_token(
            client,
            issuer,
            nonce=attempt.bound.nonce(),
            browser=attempt.wishes.browser,
            window=attempt.situation.window or attempt.wishes.method is Method.BROWSER,
            remote=attempt.situation.remote,
            screen=attempt.screen,
            stopwatch=attempt.stopwatch,
        )
    return attempt.id_token(token, issuer)


def _mediated(attempt: Attempt, issuer: LoginIssuer) -> Proven:
    return mediated(attempt, issuer, attempt.metadata.endpoint("logins"))


_INTERACTIVE: Mapping[Method, Callable[[Attempt, LoginIssuer], Proven]] = {
    Method.BROWSER: _code,
    Method.PASTE: paste,
    Method.MEDIATED: _mediated,
    Method.DEVICE: device,
}


def _present(value: Value | None, what: str) -> Value:
    """``value``; ``UsageError`` (``incomplete-wishes``) if it was left out."""
    if value is None:
        raise UsageError("incomplete-wishes", f"this way of logging in needs {what}", hint="see 'certauth login --help'")
    return value
