"""Inspection says who may do what, where and until when, from what was signed."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from certauth.errors import TokenError
from certauth.keys import Algorithm, generate, key_id
from certauth.tokens.attenuate import attenuate
from certauth.tokens.attest import append_attestation, attest, request_attestation
from certauth.tokens.blocks import Block
from certauth.tokens.codec import to_text
from certauth.tokens.datalog import QUERY_HEAD, Binary, Check, Query, Variable
from certauth.tokens.delegate import delegate
from certauth.tokens.inspect import block_ids, describe
from certauth.tokens.vocabulary import MemberOf, Narrowing
from tests.certauth.tokens.kit import ALICE, BOB, NOW, Facility, fact, with_block


def test_a_token_in_words(als: Facility) -> None:
    """User, rights, window, every narrowing and delegation appear as sentences."""
    narrowed = attenuate(als.mint(), Narrowing(operations=("read",), expires_at=NOW + timedelta(minutes=10)))
    token = delegate(narrowed, holder_key=als.holder, to_certificate=BOB, narrowing=Narrowing(networks=("10.0.0.0/8",)))
    told = describe(to_text(token), now=NOW)
    giver = key_id(als.holder.public_key)
    assert told["words"] == [
        "spiffe://als.example/user/alice, according to spiffe://als.example",
        "may read everything below /data/ at files",
        "may write /data/alice/log at files",
        "from 2026-01-01T11:59:00Z until 2026-01-01T13:00:00Z",
        "only at files",
        f"only in the hands of certificate {ALICE[:16]}… or one that its key names",
        "narrowed (1): until 2026-01-01T12:10:00Z; only to read",
        f"handed over by key {giver} (2): only in the hands of certificate {BOB[:16]}…; only from 10.0.0.0/8",
        "ends in 10 min",
    ]
    assert (told["usable_until"], told["expires_at"]) == ("2026-01-01T12:10:00Z", "2026-01-01T13:00:00Z")
    assert (told["delegable"], told["delegated_to"], told["sealed"]) == (False, [BOB], False)
    assert told["block_ids"] == list(block_ids(token))
    assert json.loads(json.dumps(told)) == told


def test_an_ended_token_says_so(als: Facility) -> None:
    """After the end, the last sentence says how long ago it was."""
    told = describe(to_text(als.mint()), now=NOW + timedelta(hours=2))
    assert isinstance(told["words"], list)
    assert told["words"][-1] == "ended 1 h ago"
    assert told["delegable"] is True


def test_a_foreign_check_is_named_as_such(als: Facility) -> None:
    """A check we do not recognise is reported without repeating what its author wrote."""
    x = Variable("x")
    strange = Check((Query(QUERY_HEAD, (fact("path", x),), ((x, "SECRET", Binary.SUFFIX),), ()),))
    told = describe(to_text(with_block(als.mint(), Block(3, checks=(strange,)))), now=NOW)
    assert told["narrowings"] == [["a check of another program's making"]]
    assert "SECRET" not in json.dumps(told)


def test_what_is_no_token_is_refused() -> None:
    """Inspecting nonsense is an error with a code."""
    with pytest.raises(TokenError):
        describe("nonsense", now=NOW)
    with pytest.raises(TokenError):
        block_ids(b"nonsense")


def test_everything_newer_in_words(als: Facility) -> None:
    """Numbers of uses, bodies, members, chains and other facilities' words appear as sentences, with their keys."""
    groups = generate(Algorithm.ED25519)
    narrowing = Narrowing(max_uses=3, body_sha256=ALICE, members=(MemberOf("run7", groups.public_key),))
    once = attenuate(attenuate(als.mint(delegation_depth=3), narrowing), Narrowing(max_uses=1))
    answer = attest(request_attestation(once), key=groups, groups=("run7", "run8"), expires_at=NOW + timedelta(minutes=5))
    told = describe(to_text(append_attestation(once, answer)), now=NOW)
    name, words = key_id(groups.public_key), told["words"]
    assert isinstance(words, list)
    assert words[5] == (f"only in the hands of certificate {ALICE[:16]}… or one that its key names, handed over up to 3 times")
    assert words[6].startswith(f"narrowed (1): only with a body whose SHA-256 is {ALICE[:16]}…; only with run7, vouched for by")
    assert words[6].endswith("…)")
    assert f"by key {name}; only 3 times (counter " in words[6]
    assert words[7].startswith("narrowed (2): only once (counter ")
    assert words[8] == f"key {name} vouches for run7, run8 (3): until 2026-01-01T12:05:00Z"
    assert told["attestations"] == [{"key": name, "groups": ["run7", "run8"], "expires_at": "2026-01-01T12:05:00Z"}]
    assert (told["delegable"], told["delegation_depth"], told["usable_until"]) == (True, 3, "2026-01-01T12:05:00Z")
