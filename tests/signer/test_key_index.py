"""The states of the keys that sign tokens, as values."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.x448 import X448PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from certauth.bundles import KeyState
from certauth.encoding import b64url
from certauth.errors import CertauthError, ConfigError, StoreError, UsageError
from certauth.keys import Algorithm, PublicKey, generate, key_id
from certauth.trust_bundle import MAX_TOKEN_ROOTS
from policy.testing import Facility
from signer.key_index import KeyIndex, State, Use
from tests.policy.door import HandClock

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def new(use: Use = Use.TOKEN) -> PublicKey:
    """The public half of a key for ``use``."""
    return generate(use.algorithm).public_key


@pytest.fixture(name="first")
def the_first_index() -> KeyIndex:
    """The index of a facility that never changed a key."""
    bundle = Facility(clock=HandClock()).bundle()
    return KeyIndex.first(bundle, token=bundle.token_roots[0].key, jwt=new(Use.JWT))


def states(index: KeyIndex, use: Use) -> list[State]:
    """The states of the keys of a use, the oldest first."""
    return [entry.state for entry in index.entries if entry.use is use]


def code(caught: pytest.ExceptionInfo[CertauthError]) -> str:
    """The code of what was raised."""
    return caught.value.code


def test_the_life_of_a_key(first: KeyIndex) -> None:
    """Prepared, active, retired, removed: at each step the bundle has a higher sequence, and one key signs."""
    old, following = first.active(Use.TOKEN), new()
    prepared = first.with_prepared(Use.TOKEN, following, now=NOW)
    assert prepared.active(Use.TOKEN) == old
    assert [root.state for root in prepared.token_roots()] == [KeyState.ACTIVE, KeyState.PREPARED]
    active = prepared.with_activated(Use.TOKEN, now=NOW + timedelta(hours=1))
    assert active.active(Use.TOKEN).kid == key_id(following)
    assert [root.state for root in active.token_roots()] == [KeyState.RETIRED, KeyState.ACTIVE]
    assert active.active(Use.TOKEN).since == NOW + timedelta(hours=1)
    removed = active.with_removed(old.kid, now=NOW)
    assert [root.kid for root in removed.token_roots()] == [key_id(following)]
    assert removed.named(old.kid).state is State.REMOVED
    assert [one.sequence - first.sequence for one in (prepared, active, removed)] == [1, 2, 3]
    assert [one.revision for one in (first, prepared, active, removed)] == [0, 1, 2, 3]


def test_a_key_for_jwts_changes_no_bundle(first: KeyIndex) -> None:
    """The bundle does not have it, so one sequence keeps meaning one content."""
    changed = first.with_prepared(Use.JWT, new(Use.JWT), now=NOW).with_activated(Use.JWT, now=NOW)
    assert (changed.sequence, changed.issued_at, changed.token_roots()) == (
        first.sequence,
        first.issued_at,
        first.token_roots(),
    )
    assert (changed.revision, states(changed, Use.JWT)) == (2, [State.RETIRED, State.ACTIVE])


def test_a_tainted_key_is_told_and_not_believed(first: KeyIndex) -> None:
    """An active one is followed by the prepared one in the same step; a former one just ends."""
    old = first.active(Use.TOKEN).kid
    with pytest.raises(UsageError, match="no token key is prepared"):
        first.with_tainted(old, now=NOW)
    changed = first.with_prepared(Use.TOKEN, new(), now=NOW).with_tainted(old, now=NOW)
    assert states(changed, Use.TOKEN) == [State.TAINTED, State.ACTIVE]
    assert [entry.kid for entry in changed.believed(Use.TOKEN)] == [changed.active(Use.TOKEN).kid]
    assert [root.state for root in changed.token_roots()] == [KeyState.TAINTED, KeyState.ACTIVE]
    retired = first.with_prepared(Use.TOKEN, new(), now=NOW).with_activated(Use.TOKEN, now=NOW)
    assert states(retired.with_tainted(old, now=NOW), Use.TOKEN) == [State.TAINTED, State.ACTIVE]
    gone = retired.with_removed(old, now=NOW).with_tainted(old, now=NOW)  # it was found stolen only later
    assert states(gone, Use.TOKEN) == [State.TAINTED, State.ACTIVE]


def test_steps_that_are_not_possible(first: KeyIndex) -> None:
    """Each is refused with a code and with what to do instead."""
    old = first.active(Use.TOKEN).kid
    prepared = first.with_prepared(Use.TOKEN, new(), now=NOW)
    gone = prepared.with_activated(Use.TOKEN, now=NOW).with_removed(old, now=NOW)
    tainted = prepared.with_tainted(old, now=NOW)
    for step, expected in (
        (lambda: prepared.with_prepared(Use.TOKEN, new(), now=NOW), "key-prepared"),
        (lambda: first.with_activated(Use.TOKEN, now=NOW), "key-not-prepared"),
        (lambda: first.with_removed(old, now=NOW), "key-active"),
        (lambda: first.with_removed("00000000", now=NOW), "key-unknown"),
        (lambda: gone.with_removed(old, now=NOW), "key-removed"),
        (lambda: tainted.with_tainted(old, now=NOW), "key-tainted"),
    ):
        with pytest.raises(UsageError) as caught:
            step()
        assert (code(caught), bool(caught.value.hint)) == (expected, True)


def test_a_bundle_has_room_for_so_many_keys(first: KeyIndex) -> None:
    """Beyond, doors would refuse the whole bundle; one that is taken out makes room."""
    index = first
    for _ in range(MAX_TOKEN_ROOTS - 1):
        index = index.with_prepared(Use.TOKEN, new(), now=NOW).with_activated(Use.TOKEN, now=NOW)
    with pytest.raises(UsageError) as caught:
        index.with_prepared(Use.TOKEN, new(), now=NOW)
    assert code(caught) == "too-many-keys"
    room = index.with_removed(first.active(Use.TOKEN).kid, now=NOW)
    assert len(room.with_prepared(Use.TOKEN, new(), now=NOW).token_roots()) == MAX_TOKEN_ROOTS


def test_the_text_says_everything(first: KeyIndex) -> None:
    """What is stored is read back as it was."""
    index = first.with_prepared(Use.TOKEN, new(), now=NOW).with_activated(Use.TOKEN, now=NOW)
    index = index.with_prepared(Use.JWT, new(Use.JWT), now=NOW).with_tainted(index.active(Use.JWT).kid, now=NOW)
    assert KeyIndex.parse(index.to_text()) == index
    assert KeyIndex.parse(index.to_text()).to_text() == index.to_text()


def _public(key: object) -> str:
    return b64url(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"keys": []},
        {"keys": [{"use": "token"}]},
        {"keys": None},
        {"revision": None},
        {"issued_at": "yesterday"},
    ],
)
def test_what_another_version_wrote_is_not_guessed_at(first: KeyIndex, change: dict[str, object]) -> None:
    """An index that cannot be understood stops the service, rather than let a withdrawn key back in."""
    with pytest.raises(StoreError) as caught:
        KeyIndex.parse(json.dumps(json.loads(first.to_text()) | change))
    assert code(caught) == "key-index-malformed"


def test_keys_of_another_kind_or_two_that_sign(first: KeyIndex) -> None:
    """A P-384 key, one that cannot sign, a P-256 key for biscuits, one key twice, two active ones: not ours."""
    document = json.loads(first.to_text())
    token, jwt = document["keys"]
    other = json.loads(first.with_prepared(Use.TOKEN, new(), now=NOW).to_text())["keys"][-1]
    for keys in (
        [token, {**jwt, "public": _public(generate_private_key(SECP384R1()))}],
        [{**token, "public": _public(X448PrivateKey.generate())}, jwt],
        [{**token, "public": jwt["public"]}, {**jwt, "public": token["public"]}],
        [token, jwt, {**token, "state": "retired"}],
        [token, jwt, {**other, "state": "active"}],
        [{**token, "state": "retired"}, jwt],
        [{**token, "state": "lost"}, jwt],
    ):
        with pytest.raises(StoreError, match="key-index-malformed"):
            KeyIndex.parse(json.dumps({**document, "keys": keys}))


def test_a_bundle_that_calls_another_key_active(first: KeyIndex) -> None:
    """The key that the facility has must be the one that its bundle says signs."""
    bundle = Facility(clock=HandClock()).bundle()
    with pytest.raises(ConfigError) as caught:
        KeyIndex.first(bundle, token=generate(Algorithm.ED25519).public_key, jwt=new(Use.JWT))
    assert code(caught) == "authority-mismatch"
