"""The engine and our codec see the same tokens, whoever wrote them, and refuse the same."""

from __future__ import annotations

import pytest
from biscuit_auth import Algorithm

from certauth.errors import TokenError
from certauth.tokens.datalog import KeyRef
from tests.conformance import agreement
from tests.conformance.agreement import read
from tests.conformance.corpus import readable, root, samples

SAMPLES = dict(samples())


@pytest.mark.parametrize("name", SAMPLES)
def test_both_read_the_same(name: str) -> None:
    """Links, signatures, keys and bytes are the same to both; what is outside the profile is refused by a rule of the lint."""
    _, reading = readable(SAMPLES[name])
    assert (reading.accepted, reading.differences) == (True, [])
    assert reading.code.startswith("lint-")


@pytest.mark.parametrize("name", ["nothing at all", "third parties, 0", "third parties, 1", "sealed", "a root key id"])
def test_both_refuse_the_same(name: str) -> None:
    """A token with one byte changed, anywhere, verifies for neither; only the root key id, a hint, is not signed."""
    sample, _ = readable(SAMPLES[name])
    unsigned = range(6) if name == "a root key id" else range(0)
    for position in range(len(sample.data)):
        changed = bytes((*sample.data[:position], sample.data[position] ^ 1, *sample.data[position + 1 :]))
        reading = read(changed, sample.root)
        assert reading.differences == []
        assert not reading.accepted or position in unsigned


def test_both_refuse_another_root() -> None:
    """No sample verifies from a key that did not sign it."""
    other = root(Algorithm.Ed25519, 9)[1]
    for make in SAMPLES.values():
        reading = read(make().data, other)
        assert (reading.accepted, reading.differences) == (False, [])


def test_the_control_differences_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A verifier that takes everything, or a codec that changes or refuses something, is told apart from the engine."""
    data, key = SAMPLES["several alternatives"]()
    wrong = KeyRef(0, bytes(32))
    with monkeypatch.context() as patch:
        patch.setattr(agreement, "verifies", lambda token, root: True)
        assert read(data, wrong).differences == ["the signatures verify for us only"]
    with monkeypatch.context() as patch:
        patch.setattr(agreement, "encode", lambda token: b"")
        assert read(data, key).differences == ["the codec writes other bytes than it read"]
    with monkeypatch.context() as patch:
        patch.setattr(agreement, "decode", refusing)
        assert read(data, key).differences == ["the engine takes what the codec does not read: token-malformed"]


def refusing(data: bytes) -> None:
    """A codec that reads nothing."""
    raise TokenError("token-malformed", "no")
