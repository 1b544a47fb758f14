"""Minted tokens say what was decided, and pass the lint of every door."""

from __future__ import annotations

import pytest

from certauth.errors import KeyMaterialError, TokenError
from certauth.keys import Algorithm, generate
from certauth.tokens.mint import mint
from certauth.tokens.vocabulary import Right
from tests.certauth.tokens.kit import ALICE, NOW, Facility, codes


def test_a_minted_token_states_its_spec(als: Facility) -> None:
    """Everything in the spec is read back from the verified token."""
    spec = als.spec(audience=("files", "jobs"))
    token = als.verify(mint(spec, als.root))
    stated = (token.issuer, token.jti, token.user, token.issued_at, token.not_before, token.expires_at, token.audience)
    assert stated == (
        spec.issuer, spec.jti, spec.user, spec.issued_at, spec.not_before, spec.expires_at, spec.audience,
    )  # fmt: skip
    assert (token.rights, token.groups, token.roles, token.projects) == (spec.rights, spec.groups, spec.roles, spec.projects)
    assert (token.assurance, token.peer_fingerprint, token.delegable, token.kid) == (2, ALICE, True, als.kid)
    assert token.holder == ALICE


def test_randomness_is_an_argument(als: Facility) -> None:
    """The same spec, key and randomness give the same bytes; other randomness gives others."""
    fixed = [mint(als.spec(), als.root, entropy=bytes) for _ in range(2)]
    assert fixed[0] == fixed[1] != als.mint()


def test_too_many_rights_are_refused_at_the_mint(als: Facility) -> None:
    """A token that every door would refuse for its size is not minted."""
    rights = tuple(Right("files", "read", f"/data/{'x' * 60}/{number}/") for number in range(80))
    with pytest.raises(TokenError) as caught:
        als.mint(rights=rights)
    assert caught.value.code == "token-too-large"


def test_only_ed25519_mints(als: Facility) -> None:
    """A P-256 key is refused as a token root."""
    with pytest.raises(KeyMaterialError):
        mint(als.spec(), generate(Algorithm.P256))


def test_an_undelegable_token_needs_no_key(als: Facility) -> None:
    """Without a delegate key the token is bound to one certificate for good."""
    token = als.mint(delegate_key=None)
    assert not als.verify(token).delegable
    assert codes(als.ask(token)) == []


@pytest.mark.parametrize(
    "hostile", ['a"); admin("true', "a\\", "check if true;", "{x}", "$x", "//", "аdmin", "a'b`c", "🙂" * 32]
)
def test_hostile_strings_stay_strings(als: Facility, hostile: str) -> None:
    """Whatever a group is called, it is a string to us and to the engine, and says nothing else."""
    token = als.verify(als.mint(groups=(hostile,), roles=(), projects=()))
    assert token.groups == (hostile,)
    assert len(token.blocks[0].facts) == 10
    assert codes(als.ask(als.mint(groups=(hostile,)))) == []


def test_expiry_and_audience_are_enforced(als: Facility) -> None:
    """A minted token begins, ends and is for its audience only."""
    token = als.mint()
    assert codes(als.ask(token, now=NOW.replace(hour=11))) == ["token-not-yet-valid"]
    assert codes(als.ask(token, now=NOW.replace(hour=13))) == ["token-expired"]
    assert codes(als.ask(token, service="jobs")) == ["token-audience", "right-not-held"]
