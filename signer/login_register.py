"""The logins under way, found by id, by code and by state: bounded in number and time.

Nothing is evicted to make room: strangers could otherwise push people out. A login counts for all of its ten minutes, whatever
becomes of it, so the bound is also one on how many can be begun. What has ended keeps its outcome for some minutes and nothing
else. Codes and states are found by hashes, so how long a search takes says nothing about them.
"""

from __future__ import annotations

import hmac
from collections import Counter, OrderedDict, deque

from certauth.errors import UnavailableError
from signer.login_code import network_of
from signer.login_state import Login, LoginLimits, Stage, digest


class Register:
    """All logins of one process; touched by one event loop only. ``at`` is always in monotonic seconds."""

    def __init__(self, limits: LoginLimits, *, code_key: bytes) -> None:
        self._limits, self._code_key = limits, code_key
        self._by_id: OrderedDict[str, Login] = OrderedDict()  # in the order of their ends
        self._living: deque[Login] = deque()  # those that have not expired, in the same order
        self._by_code: dict[bytes, Login] = {}
        self._by_state: dict[bytes, Login] = {}
        self._per_network: Counter[str] = Counter()

    def living(self, *, at: float) -> int:
        """How many logins were begun and have not expired."""
        self.forget(at=at)
        return len(self._living)

    def check_room(self, address: str | None, *, at: float) -> None:
        """Raise ``UnavailableError`` (``too-many-logins``, ``logins-full``) unless one more may be begun from there."""
        self.forget(at=at)
        if self._per_network[network_of(address)] >= self._limits.per_address:
            raise UnavailableError(
                "too-many-logins",
                "too many logins were begun from this address",
                hint="wait until those under way have ended",
                retry_after=30,
            )
        if len(self._living) >= self._limits.total:
            raise UnavailableError(
                "logins-full",
                "too many logins are under way",
                hint="try again in a minute, or log in with a browser on this machine",
                retry_after=30,
            )

    def add(self, login: Login) -> None:
        """Remember a login for which there is room."""
        self._by_id[login.id] = self._by_code[self._code_digest(login.code)] = login
        self._living.append(login)
        self._per_network[network_of(login.address)] += 1

    def find(self, login_id: str, *, at: float) -> Login | None:
        """The login with this id, perhaps one that has ended."""
        self.forget(at=at)
        return self._by_id.get(login_id)

    def with_code(self, code: str, *, at: float) -> Login | None:
        """The login that waits for this code, or is in a browser with it."""
        self.forget(at=at)
        return self._by_code.get(self._code_digest(code))

    def set_state(self, login: Login, state: str) -> None:
        """The provider's answer to ``login`` will carry ``state``, and no earlier one."""
        self._by_state.pop(login.state_digest or b"", None)
        login.state_digest = digest(state)
        self._by_state[login.state_digest] = login

    def take_state(self, state: str, *, at: float) -> Login | None:
        """The login that ``state`` belongs to; it does not belong to it any more."""
        self.forget(at=at)
        login = self._by_state.pop(digest(state), None)
        if login is not None:
            login.state_digest = None
        return login

    def end(self, login: Login, stage: Stage, reason: str = "", sentence: str = "") -> None:
        """Nothing of ``login`` can be used from now on but its outcome."""
        login.stage, login.reason, login.sentence = stage, reason, sentence
        self._close(login)

    def forget(self, *, at: float) -> None:
        """Make what has expired unusable, and forget it some minutes later."""
        while self._living and at >= self._living[0].expires_at:
            login = self._living.popleft()
            self._close(login)
            login.identity = None
            network = network_of(login.address)
            self._per_network[network] -= 1
            if not self._per_network[network]:
                del self._per_network[network]
        while self._by_id and at >= next(iter(self._by_id.values())).expires_at + self._limits.remembered:
            self._by_id.popitem(last=False)

    def _close(self, login: Login) -> None:
        self._by_code.pop(self._code_digest(login.code), None)
        self._by_state.pop(login.state_digest or b"", None)
        login.state_digest, login.verifier = None, ""

    def _code_digest(self, code: str) -> bytes:
        return hmac.digest(self._code_key, code.encode(), "sha256")
