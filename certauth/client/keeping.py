"""Keeping a certificate and its tokens alive for as long as a job runs: what is due when, and what to do if that fails.

Each of them is replaced when only a fraction of its life is left (a third unless said otherwise, somewhat earlier by chance, so
that a thousand jobs begun together do not ask together). A signer that is down is asked again and again, ever more seldom; what
is stored goes on working meanwhile. A refusal, or a person's session at its end, ends the keeping.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction

from certauth.client.agents import AgentRecord
from certauth.client.profile import Home, Profile
from certauth.client.renewal import Lost, Renewed, mint_again, renew
from certauth.client.wishes import read_wishes
from certauth.clock import Clock, rfc3339
from certauth.errors import AnswerError, CertauthError, LoginRequired, Refused, StoreError, UnavailableError

LONGEST_WAIT = 300.0
"""Seconds after which it is looked again in any case: clocks are set, machines sleep, people log in."""
SHORTEST_WAIT = 2.0
_LONGEST_BACKOFF = 600.0
_FIRST_BACKOFF = 5.0
_WITH_IT = timedelta(seconds=60)
"""A token that ends this shortly before its certificate was cut by it."""
_AT_ITS_END = frozenset({"session-ended", "lifetime-exhausted", "enrolment-ended"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """What must be replaced now, and when there is something next."""

    certificate: bool
    tokens: tuple[str, ...]
    next_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What one turn came to, in a line for the log; ``None`` if nothing was due."""

    line: str | None
    wait: float


def due(profile: Profile, *, before: Fraction, last: bool, now: datetime, except_for: Collection[str] = ()) -> Due:
    """What of ``profile`` has less than ``before`` of its life left.

    The certificate is never due if it is the ``last``, a token not if its id is in ``except_for``. Raises as
    ``Profile.credential`` does if there is no certificate that is valid.
    """
    credential = profile.credential(now=now)
    end = credential.leaf.not_valid_after_utc
    first = end if last else _moment(credential.leaf.not_valid_before_utc, end, before)
    moments, names = [first], []
    for wish in read_wishes(profile, credential.fingerprint, now=now):
        if wish.ends >= end - _WITH_IT or wish.jti in except_for:
            continue  # it ends with its certificate, as its successor would; or there will be none
        moment = _moment(wish.starts, wish.ends, before)
        if moment <= now:
            names.append(wish.name)
        else:
            moments.append(moment)
    return Due(certificate=first <= now, tokens=tuple(names), next_at=min(moments))


def _moment(start: datetime, end: datetime, before: Fraction) -> datetime:
    return end - (end - start) * before.numerator / before.denominator


class Keeper:
    """Keeps one profile.

    ``_last`` is the fingerprint of a certificate after which there will be none, ``_refused`` the ids of tokens of which there
    will be no other, ``_failures`` how many there were in a row.
    """

    def __init__(
        self,
        home: Home,
        profile: Profile,
        agent: AgentRecord | None,
        *,
        before: Fraction,
        lifetime: timedelta | None,
        ca: bytes | None,
        clock: Clock,
        chance: Callable[[], float],
    ) -> None:
        """``chance`` is a random number from 0 to 1."""
        self._home = home
        self._profile = profile
        self._agent = agent
        self._before = before
        self._lifetime = lifetime
        self._ca = ca
        self._clock = clock
        self._chance = chance
        self._last: str | None = None
        self._refused: set[str] = set()
        self._failures = 0

    def run(self, *, stopped: Callable[[float], bool], tell: Callable[[str], None], acted: Callable[[], None]) -> None:
        """Keep until ``stopped``, which waits so many seconds for being told to, returns true.

        ``tell`` takes one line for each act, ``acted`` is called after it. Raises ``LoginRequired`` when a person must log in,
        ``Refused`` when the signer will give no more.
        """
        while True:
            kept = self.turn()
            if kept.line is not None:
                tell(f"{rfc3339(self._clock())} {kept.line}")
                if not self._failures:
                    acted()
            if stopped(kept.wait):
                return

    def turn(self) -> Kept:
        """Do what is due. Raises ``LoginRequired`` and ``Refused``; what may pass is said, and tried again later."""
        try:
            line = self._act()
            found = self._due()
        except (UnavailableError, StoreError, AnswerError) as error:
            self._failures += 1
            return Kept(line=f"not renewed: {error}", wait=self._backoff(error.retry_after or 0))
        if line is not None and (found.certificate or found.tokens):
            # Once more at once, and so for ever: two clocks differ, or the fraction is too large for these lifetimes.
            self._failures += 1
            return Kept(line=f"{line}; due again at once: compare this machine's clock", wait=self._backoff(0))
        self._failures = 0
        left = (found.next_at - self._clock()).total_seconds() * (1 - self._chance() / 10)
        return Kept(line=line, wait=min(LONGEST_WAIT, max(SHORTEST_WAIT, left)))

    def _act(self) -> str | None:
        try:
            found = self._due()
        except LoginRequired:
            if self._agent is None:
                raise
            return self._renewed()
        if found.certificate:
            return self._renewed()
        if found.tokens:
            return self._minted(found.tokens)
        return None

    def _due(self) -> Due:
        last = self._last is not None and self._last == self._profile.stored_credential().fingerprint
        return due(self._profile, before=self._before, last=last, now=self._clock(), except_for=self._refused)

    def _minted(self, names: tuple[str, ...]) -> str:
        made, lost = mint_again(self._profile, names, ca=self._ca, clock=self._clock)
        given_up = {one.name for one in lost}
        holder = self._profile.stored_credential().fingerprint
        self._refused |= {wish.jti for wish in read_wishes(self._profile, holder, now=self._clock()) if wish.name in given_up}
        return _line("renewed" if made else "not renewed", made, lost)

    def _renewed(self) -> str:
        try:
            done = renew(self._home, self._profile, self._agent, lifetime=self._lifetime, ca=self._ca, clock=self._clock)
        except (LoginRequired, Refused) as error:
            # What is there may go on until its end; only then is it over.
            if error.code not in _AT_ITS_END or not self._is_valid():
                raise
            self._last = self._profile.stored_credential().fingerprint
            return f"not renewed, and will not be: {error}"
        self._refused.clear()
        # One that ends no later than the one before is the last of its session or enrolment, unless it looks old already:
        # then it is this machine's clock that is wrong.
        leaf = done.credential.leaf
        fresh = _moment(leaf.not_valid_before_utc, leaf.not_valid_after_utc, self._before) > self._clock()
        self._last = done.credential.fingerprint if fresh and done.gained <= timedelta(0) else None
        return describe_renewal(done) + ("; it is the last one" if self._last else "")

    def _is_valid(self) -> bool:
        try:
            self._profile.credential(now=self._clock())
        except CertauthError:
            return False
        return True

    def _backoff(self, at_least: int) -> float:
        wait = min(_LONGEST_BACKOFF, _FIRST_BACKOFF * 2.0 ** min(self._failures - 1, 16))
        return max(wait * (0.75 + self._chance() / 2), at_least)


def describe_renewal(done: Renewed) -> str:
    """A renewal in one line."""
    until = rfc3339(done.credential.leaf.not_valid_after_utc)
    return _line(f"renewed the certificate until {until}", done.tokens, done.lost, and_=True)


def _line(what: str, made: tuple[str, ...], lost: tuple[Lost, ...], *, and_: bool = False) -> str:
    said = []
    if made:
        said.append(f"{'and ' if and_ else ''}the tokens {', '.join(made)}")
    text = " ".join([what, *said])
    return text + (f"; lost {', '.join(f'{one.name} ({one.code})' for one in lost)}" if lost else "")
