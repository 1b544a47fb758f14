"""Device authorization grant (RFC 8628) with DPoP (RFC 9449): a browser elsewhere, at the provider's own page.

The grant knows no nonce, so an ID token from it is bound to nothing. The access token is: its ``cnf.jkt`` is the thumbprint of
the key being certified. PKCE is sent too; it costs nothing, and some providers insist.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping

from certauth.client.attempt import Attempt, Proven, access_token
from certauth.client.authorization import TOKEN_LIMIT
from certauth.client.browser import check_alive, ended_once, opened
from certauth.client.dpop import Prover
from certauth.client.http import Client, origin_of, text_member
from certauth.client.mediated import seconds
from certauth.client.metadata import LoginIssuer
from certauth.client.provider import Denial, Provider, discover, send_form
from certauth.client.waiting import Waiting
from certauth.encoding import b64url
from certauth.errors import AnswerError, CertauthError, Refused, UnavailableError, UsageError

GRANT = "urn:ietf:params:oauth:grant-type:device_code"
_INTERVAL = 5
_SLOW_DOWN = 5.0
_MOST_INTERVAL = 60
_MOST_SECONDS = 3600
_REPORT = "tell those who run the identity provider: a client does not accept this"


def device(attempt: Attempt, issuer: LoginIssuer) -> Proven:
    """Let the user log in at the provider's device page; returns a bound access token where the signer takes them.

    Raises ``Refused`` (``login-refused``), ``UnavailableError`` (``login-timeout``), and ``AnswerError`` (``token-not-bound``)
    if the provider ignored the key.
    """
    bound = "access_token" in issuer.kinds and "dpop" in issuer.bindings
    if not bound and "none" not in issuer.bindings:
        raise UsageError(
            "flow-not-offered",
            "this signer takes no access tokens that are bound by DPoP, and no other device login can be bound to your key",
            hint="log in with --mediated or --paste",
        )
    with attempt.others() as client:
        provider = discover(client, issuer.url)
        if provider.device_authorization is None:
            raise AnswerError(
                "flow-not-offered",
                f"the identity provider at {issuer.url} has no device login",
                hint="log in with --mediated or --paste",
            )
        return _login(attempt, issuer, client, provider, provider.device_authorization, bound=bound)


def _login(
    attempt: Attempt, issuer: LoginIssuer, client: Client, provider: Provider, authorization: str, *, bound: bool
) -> Proven:
    verifier = secrets.token_urlsafe(48)
    form = {
        "client_id": issuer.client_id,
        "scope": " ".join(issuer.scopes),
        "code_challenge": b64url(hashlib.sha256(verifier.encode()).digest()),
        "code_challenge_method": "S256",
    }
    redeeming = {"grant_type": GRANT, "client_id": issuer.client_id, "code_verifier": verifier}
    if issuer.access_token_audience is not None:
        form["resource"] = redeeming["resource"] = issuer.access_token_audience
    begun = send_form(client, authorization, form)
    if isinstance(begun, Denial):
        raise _refused(begun)
    redeeming["device_code"] = text_member(begun, "device_code", authorization)
    prover = Prover(attempt.key, attempt.clock) if bound else None
    members = _wait(attempt, client, provider, redeeming, begun, prover)
    if "access_token" not in issuer.kinds:
        token = text_member(members, "id_token", provider.token, limit=TOKEN_LIMIT)
        return Proven(proof={"type": "id_token", "token": token}, issuer=issuer.id)
    if bound and str(members.get("token_type")).lower() != "dpop":
        raise AnswerError(
            "token-not-bound",
            f"the identity provider at {issuer.url} gave out a token that is not bound to your key",
            hint="log in with --mediated; the provider would have to support DPoP (RFC 9449)",
        )
    token = text_member(members, "access_token", provider.token, limit=TOKEN_LIMIT)
    return Proven(proof=access_token(token, issuer), issuer=issuer.id)


def _wait(
    attempt: Attempt,
    client: Client,
    provider: Provider,
    form: Mapping[str, str],
    begun: Mapping[str, object],
    prover: Prover | None,
) -> dict[str, object]:
    """Tell the user what to do, and ask for the token in the rhythm of RFC 8628 §3.5 until they did it."""
    page = text_member(begun, "verification_uri", provider.token)
    code = text_member(begun, "user_code", provider.token, limit=64)
    direct = begun.get("verification_uri_complete")
    to_open = direct if isinstance(direct, str) else page
    _require_https(page, to_open)
    interval = seconds(begun, "interval", provider.token, most=_MOST_INTERVAL, default=_INTERVAL)
    expires = seconds(begun, "expires_in", provider.token, most=_MOST_SECONDS)
    waiting = Waiting(
        seconds=min(attempt.wishes.browser.timeout, expires),
        what="for you to finish in the browser",
        screen=attempt.screen,
        stopwatch=attempt.stopwatch,
    )
    attempt.screen.tell(
        f"To log in, open this address in a browser, on any machine:\n\n  {page}\n\nand type this code:  {code}\n"
    )
    with opened(to_open, attempt.wishes.browser, window=attempt.situation.window) as process:
        ended = ended_once(process)
        while True:
            waiting.pause(interval, until=ended)
            check_alive(process)
            try:
                answer = send_form(client, provider.token, form, prover=prover)
            except UnavailableError as error:
                interval = min(_MOST_INTERVAL, max(interval * 2, error.retry_after or 0))
                continue
            if not isinstance(answer, Denial):
                return answer
            match answer.error:
                case "authorization_pending":
                    pass
                case "slow_down":
                    interval = min(_MOST_INTERVAL, interval + _SLOW_DOWN)
                case "expired_token":
                    raise UnavailableError(
                        "login-timeout", "the code ran out before anybody finished the login", hint="run the command again"
                    )
                case _:
                    raise _refused(answer)


def _require_https(*urls: str) -> None:
    for url in urls:
        try:
            origin_of(url)
        except CertauthError as error:
            raise AnswerError(
                "wrong-issuer", "the identity provider names a page for the login that is not https", hint=_REPORT
            ) from error


def _refused(denial: Denial) -> Refused:
    said = f": {denial.said}" if denial.said else ""
    return Refused(
        "login-refused",
        f"the identity provider refused the login{said}",
        hint="run the command again; if it stays, try --mediated or --paste",
    )
