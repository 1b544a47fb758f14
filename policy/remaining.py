"""For apps that learn only from a request how long it will take: refuse it now, rather than have it cut off at the end.

    from policy import require_remaining

    async def reconstruct(request):
        require_remaining(request, timedelta(minutes=plan.minutes))

A request whose credentials do not last is answered by the door with 422 ``credential-too-short`` (RFC 9457) and the seconds
that were required and are left, and recorded as a denial. Routes that always take long say so in ``policy.toml``:
``min_remaining = "2h"``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from certauth.clock import Clock
from policy.caller import STATE, Caller
from policy.decision import Deny, Permit
from policy.shortage import HINT, TOO_SHORT, UNPROCESSABLE, Shortage, shortage


class CredentialTooShort(HTTPException):
    """The app must not begin. Whatever becomes of this exception, the door answers for it."""

    def __init__(self, found: Shortage) -> None:
        super().__init__(UNPROCESSABLE, str(found))
        self.shortage = found


class Remaining:
    """How long the credentials of one permitted request last, and whether its app found that too short."""

    __slots__ = ("_clock", "_permit", "denied")

    def __init__(self, permit: Permit, *, clock: Clock) -> None:
        self._permit, self._clock = permit, clock
        self.denied: Deny | None = None
        """What the app found; taken by the door when it answers."""

    def require(self, needed: timedelta) -> None:
        """Raise ``CredentialTooShort`` unless every credential of the request lasts as long."""
        found = shortage(needed, peer=self._permit.peer, token=self._permit.token, now=self._clock())
        if found is not None:
            self.denied = too_short(found, self._permit)
            raise CredentialTooShort(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardedCaller(Caller):
    """A caller whose app can ask how long that may go on."""

    remaining: Remaining = field(repr=False, compare=False)


def too_short(found: Shortage, permit: Permit) -> Deny:
    """The denial of a request that was permitted otherwise."""
    return Deny(
        code=TOO_SHORT,
        reasons=(str(found),),
        status=UNPROCESSABLE,
        hint=HINT,
        held=permit.held,
        route=permit.route,
        peer=permit.peer,
        token=permit.token,
        members=found.members,
    )


def require_remaining(request: HTTPConnection | Caller, needed: timedelta) -> None:
    """Raise ``CredentialTooShort`` unless the credentials of the request, or of this caller, last for ``needed`` yet.

    Call it before the answer begins. ``RuntimeError`` for a request that came through no door.
    """
    caller = request if isinstance(request, Caller) else getattr(request.state, STATE, None)
    if not isinstance(caller, GuardedCaller):
        raise RuntimeError(  # noqa: TRY004 - it is not about a type
            "the request did not come through PolicyMiddleware: how long it may take is not known"
        )
    caller.remaining.require(needed)
