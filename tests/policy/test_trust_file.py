"""Attesters are read again while the door works; whatever else is in the document, or wrong with it, is said and not done."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from certauth.encoding import b64
from certauth.errors import TokenError
from certauth.keys import Algorithm, generate, spki
from certauth.tokens.attest import append_attestation, attest, request_attestation
from certauth.tokens.codec import from_text, to_text
from policy import trust as trust_module
from policy.testing import Facility
from policy.token import TokenVerifier
from policy.trust import Trust
from tests.policy.door import START, HandClock

GROUPS, OTHERS = generate(Algorithm.ED25519), generate(Algorithm.P256)
BROKEN = {
    "not TOML": lambda text: text + "[[attester",
    "not text": lambda text: text + "\N{REPLACEMENT CHARACTER}",
    "a key that is none": lambda text: text + '[[attester]]\ndomain = "x.example"\nkey = "AAAA"\ngroups = ["a"]\n',
    "one key for two": lambda text: text + entry() + entry(domain="x.example"),
    "an unknown key": lambda text: text + "admin = true\n",
    "nothing": lambda _: "",
}


def entry(*, domain: str = "nsls.example", groups: str = '["run*"]') -> str:
    """One attester."""
    return f'[[attester]]\ndomain = "{domain}"\nkey = "{b64(spki(GROUPS.public_key))}"\ngroups = {groups}\n'


class Door:
    """A door with its document, and a token of Alice's for whom another facility vouched."""

    def __init__(self, directory: Path) -> None:
        self.facility = Facility("als.example", clock=HandClock())
        (directory / "bundle.json").write_bytes(self.facility.bundle().to_json())
        self.document = directory / "trust.toml"
        self.plain = 'version = 1\n[[domain]]\nname = "als.example"\nbundle = "bundle.json"\nfeed = "none"\n'
        self.document.write_text(self.plain + entry())
        self.trust = Trust.load(self.document, clock=self.facility.clock)
        self.tokens = TokenVerifier(self.trust)
        token = from_text(self.facility.token(self.facility.peer("alice"), "files", rights=["read /"]))
        answer = attest(request_attestation(token), key=GROUPS, groups=["run7"], expires_at=START + timedelta(hours=1))
        self.token = to_text(append_attestation(token, answer))

    def says(self) -> str:
        """What the door makes of the token: the memberships in it, or the code of its refusal."""
        try:
            found = self.tokens.verify(self.token, now=START)
        except TokenError as error:
            return error.code
        return " ".join(f"{member.domain}:{member.group}" for member in found.members)

    def problem(self) -> str | None:
        """What is wrong with the document."""
        error = self.trust.problems.get(self.document)
        return None if error is None else error.code

    def rewrite(self, text: str) -> None:
        """Another document, looked at."""
        self.document.write_bytes(text.encode().replace("\N{REPLACEMENT CHARACTER}".encode(), b"\xff"))
        self.trust.refresh()


@pytest.fixture
def door(tmp_path: Path) -> Door:
    """A door that knows one attester."""
    return Door(tmp_path)


def test_an_attester_goes_and_comes(door: Door) -> None:
    """Taken out of the document its word counts for nothing, also in a token that was found good; put back, it counts again."""
    assert door.says() == "nsls.example:run7"
    generation = door.trust.generation
    door.rewrite(door.plain)
    assert door.trust.generation == generation + 1
    assert door.says() == "token-unknown-attester"
    door.rewrite(door.plain + entry())
    assert door.says() == "nsls.example:run7"
    assert door.problem() is None


def test_its_groups_change(door: Door) -> None:
    """What a key may vouch for is read again as well."""
    door.rewrite(door.plain + entry(groups='["staff"]'))
    assert door.says() == "token-attestation"


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_document_that_is_wrong_changes_nothing(
    door: Door, broken: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    """The old attesters stay, the problem is told, in the log once; the next good document ends it."""
    before = door.trust.state.attesters
    door.rewrite(broken(door.plain))
    door.trust.refresh()
    assert door.problem() in {"trust-invalid", "unknown-key", "attester-conflict"}
    assert door.trust.state.attesters == before
    assert door.says() == "nsls.example:run7"
    assert len(caplog.records) == 1
    assert str(door.document) in caplog.text
    assert b64(spki(GROUPS.public_key)) not in caplog.text
    door.rewrite(door.plain)
    assert door.problem() is None
    assert door.says() == "token-unknown-attester"


def test_a_document_that_is_gone_changes_nothing(door: Door) -> None:
    """Nor does one that cannot be read, and when the same file is back, all is well."""
    aside = door.document.with_suffix(".aside")
    door.document.rename(aside)
    door.trust.refresh()
    assert (door.problem(), door.says()) == ("unreadable", "nsls.example:run7")
    aside.rename(door.document)
    door.trust.refresh()
    assert (door.problem(), door.says()) == (None, "nsls.example:run7")


def test_the_same_again_is_no_change(door: Door) -> None:
    """A file that was only written again empties no cache."""
    generation = door.trust.generation
    door.rewrite(f"# reviewed\n{door.plain}{entry()}")
    assert door.trust.generation == generation


def test_domains_are_read_at_the_start(door: Door) -> None:
    """Another ceiling is not in force, which is said until the service is started again; the attesters beside it are."""
    door.rewrite(door.plain + "assurance_ceiling = 1\n")
    assert door.says() == "token-unknown-attester"
    door.trust.refresh()
    assert door.problem() == "restart-needed"
    assert [found.assurance_ceiling for found in door.trust.state.entries.values()] == [3]
    assert Trust.load(door.document).problems == {}
    door.rewrite(door.plain)
    assert door.problem() is None


def test_it_happens_by_itself(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between start and stop, with no help and no restart."""
    monkeypatch.setattr(trust_module, "BUNDLE_REFRESH", 0.01)
    door.trust.start()
    try:
        scratch = door.document.with_suffix(".new")
        scratch.write_text(door.plain)
        os.replace(scratch, door.document)  # noqa: PTH105 - what an editor does
        end = time.monotonic() + 30
        while door.trust.state.attesters:
            assert time.monotonic() < end, "nobody looked"
            time.sleep(0.01)
    finally:
        door.trust.stop()
    assert door.says() == "token-unknown-attester"


def test_a_bundle_and_an_attester_change_together(door: Door) -> None:
    """One look finds both, and neither undoes the other."""
    bundle = replace(door.facility.bundle(), sequence=2)
    (door.document.parent / "bundle.json").write_bytes(bundle.to_json())
    door.rewrite(door.plain)
    assert [found.bundle.sequence for found in door.trust.state.entries.values()] == [2]
    assert door.says() == "token-unknown-attester"
