"""Signer-mediated logins: the signer is the provider's client, for a person whose machine has no browser.

    begin     a program sends its key; it is given a code for its user, and keeps a secret of which we know the hash
    enter     the user types the code in some browser, which becomes the login's only browser
    confirm   they compare host and key, and say that it is them (or not); the browser is sent to the provider
    callback  it comes back with the provider's answer, which becomes a verified identity; the ID token stays here
    state     the program asks how far it is
    claim     the identity, for the purpose it was begun for and for that very key, by who knows the secret

What is tied to what, and what that stops:

1. The ID token to the key: its nonce is the hash of signer, key and a salt made here. It is of no use with another key.
2. The provider's answer to the login: a random state, used once, and PKCE (S256). No foreign code can be slipped in.
3. The login to one browser: a cookie given to whoever typed the code. Who is sent to the provider by somebody else comes back
   without it, and the login ends there.
4. The answer to the provider: ``iss`` (RFC 9207), or an address of its own. A provider cannot answer for another.
5. The result to the program: its secret, and its key.
6. The result to what the person was told it is for: a certificate, or a link to one principal. It is good for nothing else.

Everything is in the memory of one process (``login_register``) and belongs to one event loop. A restart forgets logins that are
under way, and their users begin again.
"""

from __future__ import annotations

import hmac
import math
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Final

from certauth.clock import Clock
from certauth.encoding import b64url
from certauth.errors import CertauthError, ProofError, Refused, RequestError, UnavailableError
from certauth.identity import SALT_BYTES, VerifiedIdentity
from certauth.identity.binding import short_fingerprint
from signer.jwks import KeySource
from signer.login_client import LoginClient
from signer.login_code import Guesses, in_groups, network_of, new_code, read_code
from signer.login_provider import Provider
from signer.login_register import Register
from signer.login_state import AGAIN, Answer, Begun, Confirmation, Login, LoginLimits, Progress, Stage, digest

PAGE: Final = "/login"
_ELSEWHERE_ASSURANCE: Final = 1
_EARLY: Final = 0.75
"""The part of the interval after which the next question is answered: the network does not deliver at even distances."""
_MARGIN: Final = timedelta(minutes=1)


def cookie_name(login: str) -> str:
    """One cookie for each login, so that two of them can go on in one browser. ``__Host-``: no other host can set it."""
    return f"__Host-certauth-{login}"


class Logins:
    """The logins under way, and every step of them."""

    def __init__(
        self,
        *,
        public_url: str,
        providers: Iterable[Provider],
        keys: KeySource,
        clock: Clock,
        ticks: Callable[[], float] = time.monotonic,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
        limits: LoginLimits | None = None,
        guesses: Guesses | None = None,
    ) -> None:
        """``public_url`` is the signer's origin; ``ticks`` are monotonic seconds."""
        self._page = f"{public_url}{PAGE}"
        self._client = LoginClient(public_url=public_url, providers=providers, keys=keys, clock=clock)
        self._clock, self._ticks, self._entropy = clock, ticks, entropy
        self._limits = limits or LoginLimits()
        self._guesses = guesses or Guesses()
        self._register = Register(self._limits, code_key=entropy(32))

    @property
    def under_way(self) -> int:
        """How many logins were begun and have not expired, for metrics."""
        return self._register.living(at=self._ticks())

    # --- the program ----------------------------------------------------------------------------------------------------

    async def begin(
        self,
        *,
        spki: bytes,
        issuer: str | None,
        host: str,
        secret_digest: bytes,
        address: str | None,
        link: str | None = None,
    ) -> Begun:
        """Begin a login for the key ``spki``, whose possession was proved. ``host`` is the machine's own word.

        ``secret_digest`` is SHA-256 of the secret's text; ``link`` is the principal to link the login to, if that is what it
        is for. Raises ``RequestError`` (``issuer-needed``,
        ``issuer-not-mediated``), ``Refused`` (``issuer-mix-up``) or ``UnavailableError`` (``issuer-unavailable``,
        ``too-many-logins``, ``logins-full``).
        """
        provider = self._client.provider(issuer)
        await self._client.discovery(provider)  # who cannot be logged in anyway is told so at once
        now = self._ticks()
        self._register.check_room(address, at=now)
        login = Login(
            id=b64url(self._entropy(16)),
            provider=provider,
            spki=spki,
            salt=self._entropy(SALT_BYTES),
            host=host,
            address=address,
            secret_digest=secret_digest,
            code=self._new_code(now),
            expires_at=now + self._limits.lifetime,
            next_poll=now,
            link=link,
        )
        self._register.add(login)
        return Begun(
            login=login.id,
            user_code=in_groups(login.code),
            verification_uri=self._page,
            expires_in=int(self._limits.lifetime),
            interval=math.ceil(self._limits.interval),
        )

    def state(self, login_id: str, secret: str) -> Progress:
        """How far the login is.

        Raises ``RequestError`` (``login-unknown``: no such login, or another's secret), ``Refused`` (``login-denied``,
        ``login-failed``, ``login-expired``) or ``UnavailableError`` (``slow-down``: asked before the interval was over).
        """
        login = self._of_program(login_id, secret)
        now = self._ticks()
        login.check_going_on(at=now)
        if login.stage is not Stage.READY:
            if now < login.next_poll:
                raise UnavailableError(
                    "slow-down",
                    "the login was asked about too soon",
                    hint="wait for as many seconds as 'interval' says between two questions",
                    retry_after=math.ceil(login.next_poll - now),
                )
            login.next_poll = now + self._limits.interval * _EARLY
        return Progress(state=login.stage.for_program, interval=math.ceil(self._limits.interval))

    def claim(self, login_id: str, secret: str, spki: bytes, *, link: str | None = None) -> VerifiedIdentity:
        """Who logged in, for a certificate for ``spki``, or for a link to the principal ``link`` if it was begun for that.

        Can be asked again until the login expires, as an answer may be lost.

        One certificate comes of it all the same: ``proof_digest`` is the same each time, and to be remembered until after the
        login's end. Raises as ``state`` does (but not ``slow-down``), ``RequestError`` (``login-pending``) and ``ProofError``
        (``key-not-bound``, ``wrong-purpose``).
        """
        login = self._of_program(login_id, secret)
        login.check_going_on(at=self._ticks())
        if login.identity is None:
            raise RequestError("login-pending", "the login is not finished", hint="wait until its state is 'ready'")
        if not hmac.compare_digest(spki, login.spki):
            raise ProofError(
                "key-not-bound",
                "the login was begun for another key than that of this request",
                hint="send the request that the login was begun with",
            )
        if link != login.link:  # the person in the browser was told of something else
            raise ProofError(
                "wrong-purpose",
                f"the login was begun for {f'a link to {login.link}' if login.link else 'a certificate'}, and not for this",
                hint="begin another one: certauth login --link to link a login, certauth login for a certificate",
            )
        return login.identity

    # --- the browser ----------------------------------------------------------------------------------------------------

    def enter(self, typed: str, *, address: str | None, cookies: Mapping[str, str]) -> Confirmation:
        """Somebody typed a code. The first browser to do so becomes the login's own; in any other the code is unknown.

        Raises ``Refused`` (``code-wrong``) or ``UnavailableError`` (``too-many-tries``).
        """
        now, network = self._ticks(), network_of(address)
        self._guesses.check(network, at=now)
        code = read_code(typed)
        login = None if code is None else self._register.with_code(code, at=now)
        if login is not None and login.stage is Stage.PENDING:
            cookie = b64url(self._entropy(32))
            login.browser_digest, login.stage = digest(cookie), Stage.OPENED
            return self._confirmation(login, cookie)
        if login is not None and login.is_of_browser(cookies.get(cookie_name(login.id), "")):
            return self._confirmation(login, None)
        if code is not None:
            self._guesses.wrong(network, at=now)
        raise Refused(
            "code-wrong",
            "no login waits for this code",
            hint="compare it with what your terminal shows; a code works once, and for ten minutes",
        )

    async def confirm(self, login_id: str, *, cookies: Mapping[str, str], yes: bool) -> str | None:
        """Somebody decided: the address at the provider to send them to, or ``None`` if it was not them.

        Raises ``Refused`` (``browser-mismatch``, ``login-over``, ``login-denied`` …, ``issuer-mix-up``) or
        ``UnavailableError`` (``issuer-unavailable``).
        """
        login = self._of_browser(login_id, cookies)
        if not yes:
            self._register.end(login, Stage.DENIED, "not-me", "somebody said in the browser that it was not them")
            return None
        discovery = await self._client.discovery(login.provider)
        self._of_browser(login_id, cookies)  # again: time has passed
        state, login.verifier = b64url(self._entropy(32)), b64url(self._entropy(32))
        login.discovery, login.stage = discovery, Stage.CONFIRMED
        self._register.set_state(login, state)
        return self._client.authorization_url(login, discovery, state=state)

    async def callback(
        self, answer: Answer, *, issuer: str | None, cookies: Mapping[str, str], address: str | None
    ) -> tuple[str, VerifiedIdentity]:
        """The provider's answer came back, at the address of ``issuer`` if it has its own: the login and who logged in.

        It is for the page only; nothing is granted here. An answer is looked at once, and whatever is wrong with it ends the
        login. Raises ``Refused`` (``state-unknown``) where it belongs to none, and otherwise the reason.
        """
        login = self._register.take_state(answer.state, at=self._ticks())
        if login is None:
            raise Refused(
                "state-unknown",
                "this answer of a provider belongs to no login that is under way here, or was used already",
                hint="look at your terminal; if it does not go on, begin again with 'certauth login'",
            )
        login.stage = Stage.PROVING
        try:
            if not login.is_of_browser(cookies.get(cookie_name(login.id), "")):
                raise Refused(
                    "browser-mismatch",
                    "the provider's answer came back in another browser than the code was typed in",
                    hint="if somebody sent you a link, that was a fraud, and it failed; otherwise " + AGAIN,
                )
            code = self._client.code_of(login, answer, issuer=issuer)
            identity = await self._client.prove(login, code)
        except CertauthError as error:
            stage = Stage.DENIED if error.code == "provider-denied" else Stage.FAILED
            self._register.end(login, stage, error.code, error.message)
            raise
        except BaseException:
            self._register.end(login, Stage.FAILED, "internal", "the signer failed")
            raise
        login.check_going_on(at=self._ticks())
        login.identity = identity = self._worth(login, identity, address=address)
        self._register.end(login, Stage.READY)
        return login.id, identity

    # --- steps ----------------------------------------------------------------------------------------------------------

    def _confirmation(self, login: Login, cookie: str | None) -> Confirmation:
        return Confirmation(
            login=login.id,
            seconds=math.ceil(login.expires_at - self._ticks()),
            cookie=cookie,
            host=login.host,
            address=login.address,
            fingerprint=short_fingerprint(login.spki),
            issuer=login.provider.issuer,
            link=login.link,
        )

    def _worth(self, login: Login, identity: VerifiedIdentity, *, address: str | None) -> VerifiedIdentity:
        """The identity as a mediated one, to be remembered as used for as long as it can be claimed."""
        identity = identity.as_mediated()
        elsewhere = address is None or login.address is None or network_of(address) != network_of(login.address)
        if login.provider.same_address and elsewhere:
            identity = replace(identity, assurance=min(identity.assurance, _ELSEWHERE_ASSURANCE))
        end = self._clock() + timedelta(seconds=login.expires_at - self._ticks()) + _MARGIN
        return replace(identity, replay_until=max(identity.replay_until, end))

    def _of_program(self, login_id: str, secret: str) -> Login:
        login = self._register.find(login_id, at=self._ticks())
        known = hmac.compare_digest(digest(secret), bytes(32) if login is None else login.secret_digest)
        if login is None or not known:  # one answer to both: a stranger does not learn which logins there are
            raise RequestError("login-unknown", "there is no such login, or it is not yours", hint=AGAIN)
        return login

    def _of_browser(self, login_id: str, cookies: Mapping[str, str]) -> Login:
        login = self._register.find(login_id, at=self._ticks())
        if login is None or not login.is_of_browser(cookies.get(cookie_name(login_id), "")):
            raise Refused(
                "browser-mismatch",
                "the code of this login was not typed in this browser",
                hint="type the code that your terminal shows; the page needs cookies",
            )
        login.check_going_on(at=self._ticks())
        if login.stage not in (Stage.OPENED, Stage.CONFIRMED):
            raise Refused("login-over", "this login is finished", hint="go back to your terminal")
        return login

    def _new_code(self, now: float) -> str:
        code = new_code(self._entropy)
        while self._register.with_code(code, at=now) is not None:
            code = new_code(self._entropy)
        return code
