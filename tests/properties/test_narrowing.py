"""However a token is narrowed, handed on and vouched for, it never opens what the token it was made from did not open.

The whole chain, in process: real keys and certificates, real tokens, the door's own verification and decision.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from certauth.errors import CertauthError
from certauth.tokens import attenuate, delegate, from_text, to_text
from certauth.tokens.vocabulary import MemberOf, Narrowing
from policy.testing import Facility, Peer
from tests.policy.door import START, Door, HandClock

CLOCK = HandClock()
FACILITY, OTHER = (Facility(name, clock=CLOCK) for name in ("als.example", "nsls.example"))
ALICE, BOB, CAROL = (FACILITY.peer(name) for name in ("alice", "bob", "carol"))
PEOPLE = {"alice": ALICE, "bob": BOB, "carol": CAROL}
DOOR = Door(FACILITY.trust(attesters=[OTHER.attester("run*")]), CLOCK)
DIGEST = "ab" * 32
DEPTH = 3
RIGHTS = ("read /files/a/", "write /files/a/x", "read /files/b/1", "connect /live")
REQUESTS = (
    *("GET /files/a/x", "GET /files/a/y/z", "GET /files/b/1", "GET /files/c", "GET /files/b/12"),
    *("PUT /files/a/x", "DELETE /files/a/x", "WEBSOCKET /live"),
)
ADDRESSES = ("192.0.2.7", "2001:db8::1")

PATHS = ("/files/", "/files/a/", "/files/a/x", "/files/a/y/", "/files/b/1", "/files/c", "/live", "/")
people = st.sampled_from(sorted(PEOPLE))
narrowings = st.builds(
    Narrowing,
    operations=st.none() | st.lists(st.sampled_from(["read", "write", "delete", "connect"]), min_size=1, max_size=2).map(tuple),
    paths=st.none() | st.lists(st.sampled_from(PATHS), min_size=1, max_size=3, unique=True).map(tuple),
    expires_at=st.none() | st.sampled_from([START + timedelta(minutes=minutes) for minutes in (1, 30, 600)]),
    services=st.none() | st.sampled_from([("data",), ("other",), ("data", "other")]),
    networks=st.sampled_from([None, ("192.0.2.0/24",), ("2001:db8::/32", "192.0.2.1/32")]),
    max_uses=st.sampled_from([None, None, 1, 5]),
    body_sha256=st.sampled_from([None, None, DIGEST, "cd" * 32]),
    members=st.sampled_from([None, None, (MemberOf("run7", OTHER.group_key.public_key),)]),
)


@dataclass(frozen=True)
class Token:
    """A token, in whose hands it works, how often it can still be handed on, and the one it was made from."""

    text: str
    holder: str
    parent: Token | None
    left: int = DEPTH
    vouched: bool = False

    @property
    def origin(self) -> Token:
        token = self
        while token.parent is not None:
            token = token.parent
        return token


def permits(token: Token, holder: Peer, what: str, address: str) -> bool:
    """Whether the door lets this through, now; an error is a denial too."""
    return _permits(token.text, holder, what, address, CLOCK.now)


@lru_cache(maxsize=100_000)  # each token is compared with all that are made from it
def _permits(text: str, holder: Peer, what: str, address: str, _now: datetime) -> bool:
    try:
        return DOOR.code(what, holder, text, address=address, counts=True, body_sha256=DIGEST) == "permit"
    except CertauthError:
        return False


class Narrowings(RuleBasedStateMachine):
    """Arbitrary attenuations and delegations, from the full token or from whatever was derived; and time that passes."""

    tokens = Bundle("tokens")
    made: list[Token]

    @initialize(target=tokens)
    def mint(self) -> Token:
        CLOCK.now = START
        self.made = []
        text = FACILITY.token(ALICE, "data", rights=RIGHTS, lifetime=timedelta(hours=1), delegations=DEPTH)
        return Token(text, "alice", None)

    @rule(target=tokens, token=tokens, narrowing=narrowings)
    def attenuate(self, token: Token, narrowing: Narrowing) -> object:
        try:
            child = to_text(attenuate(from_text(token.text), narrowing))
        except CertauthError:
            return multiple()  # nothing to narrow, or a block too many
        return self._made(Token(child, token.holder, token, token.left, token.vouched))

    @rule(target=tokens, token=tokens, group=st.sampled_from(["run7", "run8", "staff"]))
    def vouch(self, token: Token, group: str) -> object:
        try:
            child = OTHER.vouch(token.text, group)
        except CertauthError:
            return multiple()  # a block too many
        # The other facility's word opens what somebody asked that word for, so such a token is compared with no other.
        return self._made(Token(child, token.holder, None, token.left, vouched=True))

    @rule(
        target=tokens,
        token=tokens,
        narrowing=narrowings,
        by=st.sampled_from(sorted(PEOPLE)),
        to=st.sampled_from(sorted(PEOPLE)),
        depth=st.integers(0, DEPTH),
    )
    def delegate(self, token: Token, narrowing: Narrowing, by: str, to: str, depth: int) -> object:
        try:
            child = to_text(
                delegate(
                    from_text(token.text),
                    holder_key=PEOPLE[by].key,
                    to_certificate=PEOPLE[to].certificate,
                    narrowing=narrowing,
                    depth=depth,
                )
            )
        except CertauthError:
            return multiple()  # only the holder can hand it on, and only so often
        if by != token.holder or depth >= token.left:
            raise AssertionError(f"{by} handed on a token of {token.holder}'s that can be handed on {token.left} times")
        return self._made(Token(child, to, token, depth, token.vouched))

    @rule(minutes=st.sampled_from([0, 5, 45, 90]))
    def wait(self, minutes: int) -> None:
        CLOCK.now = START + timedelta(minutes=minutes)

    def _made(self, token: Token) -> Token:
        self.made.append(token)
        return token

    @invariant()
    def nothing_was_widened(self) -> None:
        """The newest token, in every hand, for every request: never more than its parent, nor than the first of all."""
        for token in self.made[-1:]:
            for what in REQUESTS:
                for address in ADDRESSES:
                    held = [name for name, peer in PEOPLE.items() if permits(token, peer, what, address)]
                    if held and held != [token.holder]:
                        raise AssertionError(f"{what} in the hands of {held}, not only of {token.holder}")
                    for older in {token.parent or token, token.origin}:
                        if older.vouched == token.vouched and held and not permits(older, PEOPLE[older.holder], what, address):
                            raise AssertionError(f"{what} from {address}: a derived token opens what its origin does not")


TestNarrowings = Narrowings.TestCase
TestNarrowings.settings = settings(
    max_examples=80, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
)


def test_the_machine_would_see_a_widening() -> None:
    """The control: the requests of the machine tell the full token from a narrow one, in the right hands and in wrong ones."""
    CLOCK.now = START
    full = Token(FACILITY.token(ALICE, "data", rights=RIGHTS), "alice", None)
    narrow = Token(to_text(attenuate(from_text(full.text), Narrowing(paths=("/files/a/y/",)))), "alice", full)

    def opened(token: Token, peer: Peer) -> set[str]:
        return {what for what in REQUESTS if permits(token, peer, what, ADDRESSES[0])}

    everything = {"GET /files/a/x", "GET /files/a/y/z", "PUT /files/a/x", "GET /files/b/1", "WEBSOCKET /live"}
    assert opened(full, ALICE) == everything
    assert opened(narrow, ALICE) == {"GET /files/a/y/z"}
    assert opened(full, BOB) == set()
