"""The numbers by which providers' keys are fetched: what was measured and decided, so that nobody changes one by accident."""

from __future__ import annotations

from signer.jwks import IssuerSource, KeySource, Pace
from signer.outbound import MAX_ANSWER

HOUR, DAY = 3600, 86400


def test_the_pace_of_a_running_signer() -> None:
    """5 s for a fetch, 30 s between two, fresh from 5 min to 6 h, discovery daily, a day without the provider; 256 KiB."""
    source = KeySource([IssuerSource(url="https://idp.example")])
    [keeper] = source._keepers.values()
    assert keeper._pace == Pace(
        timeout=5,
        cooldown=30,
        refresh_after=HOUR,
        refresh_least=300,
        refresh_most=6 * HOUR,
        rediscover_after=DAY,
        expire_after=DAY,
    )
    assert source.outbound("https://idp.example")._timeout == 5
    assert MAX_ANSWER == 256 * 1024
