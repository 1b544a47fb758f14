"""What is left of a token's rights costs little to find out, whatever its holders appended."""

from __future__ import annotations

import pytest

from certauth.enrolment import EnrolledRight
from certauth.tokens.blocks import Block
from certauth.tokens.codec import MAX_BYTES
from certauth.tokens.conditions import Paths
from certauth.tokens.vocabulary import Right
from signer.exchange import narrowed_rights
from tests.certauth.tokens.kit import Facility, with_block
from tests.costs import least_cost

BOUND_SECONDS = 0.5
"""CPU time; the costliest takes a hundredth of a second here. Comparing all rights with each other for each check took ten."""

EVERYTHING = tuple(Right("files", "read", f"/{number}/") for number in range(60))
SHAPES = {
    "one path": [("/",)],
    "many paths": [("/",) * 16],
    "nested paths": [("/", *(f"/1/{'a/' * depth}" for depth in range(15)))],
    "paths in turn": [(*(f"/{turn}/{number}/" for number in range(8)), "/") for turn in range(8)],
}


def stuffed(als: Facility, shape: list[tuple[str, ...]]) -> bytes:
    """A token of sixty rights with as many narrowings of this shape as fit into it."""
    token = als.mint(rights=EVERYTHING, delegate_key=None)
    for block in range(7):
        checks = [Paths(shape[(block + number) % len(shape)]) for number in range(32)]
        fitting = [
            found for count in range(1, 33) if len(found := with_block(token, Block(3, checks=(*checks[:count],)))) <= MAX_BYTES
        ]
        token = fitting[-1] if fitting else token
    return token


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_narrowings_are_followed_in_time(shape: list[tuple[str, ...]]) -> None:
    """The signer is asked about tokens by their holders, and answers everybody from one loop."""
    als = Facility()
    token = als.verify(stuffed(als, shape))
    assert sum(len(block.checks) for block in token.blocks) >= 8
    assert least_cost(lambda: narrowed_rights(token), runs=2) < BOUND_SECONDS
    assert set(narrowed_rights(token) or ()) <= {EnrolledRight(*right) for right in EVERYTHING}
