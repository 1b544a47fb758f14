"""The engine's binding has traps; each is shown to be one, and that nobody falls into it through us.

Panics and dead builders: ``test_engine``. Text that becomes Datalog, foreign functions, nested text: ``test_hostile``.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from biscuit_auth import AuthorizerBuilder, Biscuit, BiscuitBuilder, BlockBuilder, DataLogError, Fact, KeyPair

from certauth.errors import CertauthError, UsageError
from certauth.tokens.attenuate import attenuate
from certauth.tokens.authorizer import Allowed, evaluate
from certauth.tokens.codec import decode, to_text
from certauth.tokens.inspect import describe
from certauth.tokens.signing import append, seal, third_party_request
from certauth.tokens.vocabulary import Narrowing
from tests.certauth.tokens.kit import ALICE, NOW, Facility, codes, entropy


def test_secrets_are_not_shown(als: Facility) -> None:
    """The engine's private key shows itself; of ours, neither root, holder, token, link nor verified token does."""
    pair = KeyPair()
    assert bytes(pair.private_key.to_bytes()).hex() in repr(pair.private_key), "the control: this is the trap"
    data = als.mint()
    token = decode(data)
    secrets = [token.proof, als.root.private_key.private_bytes_raw()]  # type: ignore[union-attr]  # it is Ed25519
    secrets.append(als.holder.private_key.private_numbers().private_value.to_bytes(32))  # type: ignore[union-attr]
    things = (als, als.root, als.holder, token, token.blocks, als.verify(data), als.roots, als.spec(), seal(token))
    shown = "".join(f"{thing!r} {thing!s}" for thing in things)
    for secret in secrets:
        assert secret.hex() not in shown
        assert repr(secret)[2:-1] not in shown


def test_a_failure_spoils_nothing_shared(als: Facility) -> None:
    """A builder that failed once is dead; the policies every decision begins with are not touched by one that fails."""
    verified = als.verify(als.mint())
    usual: dict[str, Any] = {"now": NOW, "service": "files", "operation": "read", "peer_fingerprint": ALICE}
    for path in ("/data/\ud800", "/data/x\x00y", '/data/"); admin("', "/data/" + "a" * 100_000):
        with suppress(CertauthError, TypeError):  # a door refuses the first of them before: it is no path
            evaluate(verified, path=path, client_address=None, **usual)
        assert evaluate(verified, path="/data/a", client_address="10.1.2.3", **usual) == Allowed()


def test_lists_are_not_bytes(als: Facility) -> None:
    """The engine makes bytes of a list of small numbers, and of an empty one; our values have types that say what they are."""
    shown = str(BiscuitBuilder("f({a}, {b})", {"a": [1, 2], "b": []}))
    assert "hex:0102" in shown, "the control: this is the trap"
    for wrong in ([1, 2], [], (b"read",), (1,), ("",)):
        with pytest.raises((UsageError, TypeError)):
            Narrowing(operations=wrong)  # type: ignore[arg-type]
    narrowed = attenuate(als.mint(), Narrowing(operations=("read", "write")))
    assert als.verify(narrowed).blocks[1].facts == ()


def test_times_may_be_in_any_zone(als: Facility) -> None:
    """The engine takes UTC of one class only and drops fractions; ours is the same moment in every zone, in whole seconds."""
    end = NOW + timedelta(minutes=30)
    with pytest.raises((ValueError, TypeError, DataLogError)):
        Fact("f({t})", {"t": end.astimezone(ZoneInfo("Europe/Berlin"))})
    for zone in (UTC, ZoneInfo("UTC"), ZoneInfo("Europe/Berlin"), ZoneInfo("Asia/Kathmandu")):
        token = attenuate(als.mint(), Narrowing(expires_at=end.astimezone(zone) + timedelta(microseconds=999_999)))
        assert als.ask(token, now=(end - timedelta(seconds=1)).astimezone(zone)) == Allowed()
        assert codes(als.ask(token, now=end.astimezone(zone))) == ["token-expired"]
    with pytest.raises(UsageError):
        Narrowing(expires_at=datetime(2026, 1, 1))  # noqa: DTZ001 - a time without a zone is what must be refused
    with pytest.raises(UsageError):
        als.spec(expires_at=datetime(2026, 1, 1, 13))  # noqa: DTZ001


def test_there_is_one_time(als: Facility) -> None:
    """Of two times the engine needs one to fit; each decision of ours has its own, and remembers none."""
    pair = KeyPair()
    old = BiscuitBuilder("check if time($t), $t < 2026-01-01T00:00:00Z").build(pair.private_key)
    both = AuthorizerBuilder("time(2025-01-01T00:00:00Z); time(2027-01-01T00:00:00Z); allow if true")
    assert both.build(old).authorize() == 0, "the control: an expired token passes"
    token = attenuate(als.mint(), Narrowing(expires_at=NOW + timedelta(minutes=5)))
    verified = als.verify(token)
    usual: dict[str, Any] = {"service": "files", "operation": "read", "path": "/data/a", "peer_fingerprint": ALICE}
    for minutes, allowed in ((0, True), (6, False), (0, True), (61, False), (-2, False), (4, True)):
        decision = evaluate(verified, now=NOW + timedelta(minutes=minutes), client_address=None, **usual)
        assert (decision == Allowed()) is allowed


def test_what_is_shown_is_not_parsed(als: Facility) -> None:
    """The engine prints a name as Datalog that reads otherwise; what we show are values, each in its place."""
    name = 'x"); admin("true'
    data = als.mint(groups=(name,))
    source = Biscuit.from_bytes(data, als.roots[als.kid].engine_key).block_source(0)
    assert 'admin("true")' in source, "the control: printed and parsed again, this is another fact"
    assert str(BlockBuilder(source)).count('admin("true")') == 1
    assert describe(to_text(data), now=NOW)["groups"] == [name]


def test_third_parties_get_one_signature(als: Facility) -> None:
    """What another facility is handed to sign for a token holds neither its content nor its secret."""
    token = append(decode(als.mint()), decode(als.mint()).contents[0]._replace(facts=(), symbols=(), keys=()), entropy=entropy)
    request = third_party_request(token)
    assert len(request) == 66
    assert token.proof not in request
    assert request.endswith(token.blocks[-1].signature)
