"""How much harm a machine's stolen key could do, and so how long it may work and from where.

A service that only reads may be enrolled for two months from anywhere. One that changes things is enrolled for two weeks and
from a few networks; one that administers, for two days and from two small ones. So what is worth stealing is soon worthless,
and useless elsewhere.

| power  | for            | at most | networks | none wider than |
| ------ | -------------- | ------- | -------- | --------------- |
| low    | reading        | 60 days | any      | –               |
| medium | anything else  | 14 days | 1 to 8   | /16 or /48      |
| high   | administration | 2 days  | 1 to 2   | /24 or /56      |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum
from ipaddress import IPv4Network, IPv6Network
from types import MappingProxyType
from typing import Final

from certauth.enrolment import EnrolledRight
from certauth.errors import UsageError

READING: Final = frozenset({"read", "list"})
"""Operations that change nothing."""

Network = IPv4Network | IPv6Network


class Power(IntEnum):
    """What a machine may do to the facility."""

    LOW = 1
    MEDIUM = 2
    HIGH = 3

    def __str__(self) -> str:
        return self.name.lower()

    @classmethod
    def parse(cls, text: str) -> Power:
        """``low``, ``medium`` or ``high``."""
        return cls[text.upper()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """For how long, and from where. ``most`` is ``None`` where no network need be named."""

    longest: timedelta
    most: int | None
    prefix_v4: int = 0
    prefix_v6: int = 0


BOUNDS: Final[Mapping[Power, Bounds]] = MappingProxyType(
    {
        Power.LOW: Bounds(longest=timedelta(days=60), most=None),
        Power.MEDIUM: Bounds(longest=timedelta(days=14), most=8, prefix_v4=16, prefix_v6=48),
        Power.HIGH: Bounds(longest=timedelta(days=2), most=2, prefix_v4=24, prefix_v6=56),
    }
)


def least_power(rights: Iterable[EnrolledRight], *, is_admin: bool) -> Power:
    """The least power with which all this can be had: nothing is low because somebody calls it so."""
    if is_admin:
        return Power.HIGH
    return Power.LOW if all(right.operation in READING for right in rights) else Power.MEDIUM


def check_power(power: Power, *, least: Power, lifetime: timedelta, networks: tuple[Network, ...]) -> None:
    """Raise ``UsageError`` (``power-too-low``, ``power-too-long``, ``power-networks``) for an enrolment outside the table."""
    if power < least:
        raise UsageError(
            "power-too-low",
            f"what it may do is of {least} power, not {power}",
            hint=f"say --power {least}, or give it less to do",
        )
    bounds = BOUNDS[power]
    if lifetime > bounds.longest:
        raise UsageError(
            "power-too-long",
            f"a machine of {power} power is enrolled for {bounds.longest.days} days at most",
            hint=f"say --for {bounds.longest.days}d or less, and enrol it again in time",
        )
    if bounds.most is not None and not 1 <= len(networks) <= bounds.most:
        raise UsageError(
            "power-networks",
            f"a machine of {power} power works from 1 to {bounds.most} networks, not {len(networks)}",
            hint="name each network it works from with --network",
        )
    for network in networks:
        least_prefix = bounds.prefix_v4 if network.version == 4 else bounds.prefix_v6
        if network.prefixlen < least_prefix:
            raise UsageError(
                "power-networks",
                f"{network} is too wide for a machine of {power} power",
                hint=f"name networks of /{least_prefix} or smaller",
            )
