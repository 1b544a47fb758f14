"""The table of power, row by row and edge by edge: more power is enrolled for less time and from fewer, smaller networks."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import ip_network

import pytest

from certauth.enrolment import EnrolledRight
from certauth.errors import UsageError
from signer.power import Network, Power, check_power, least_power

DAY, SECOND = timedelta(days=1), timedelta(seconds=1)


def networks(count: int, prefix_v4: int | None, prefix_v6: int | None) -> tuple[Network, ...]:
    """So many different networks, in turn of both kinds."""
    made: list[Network] = []
    for number in range(count):
        if number % 2 and prefix_v6 is not None:
            made.append(ip_network(f"2001:db8:{number:x}::/{prefix_v6}", strict=False))
        else:
            made.append(ip_network(f"10.{number}.0.0/{24 if prefix_v4 is None else prefix_v4}", strict=False))
    return tuple(made)


def said(power: Power, lifetime: timedelta, where: tuple[Network, ...]) -> str | None:
    """The code of the refusal, if it is one."""
    try:
        check_power(power, least=Power.LOW, lifetime=lifetime, networks=where)
    except UsageError as error:
        return error.code
    return None


@pytest.mark.parametrize(
    ("power", "longest", "most", "prefix_v4", "prefix_v6"),
    [(Power.LOW, 60, None, 0, 0), (Power.MEDIUM, 14, 8, 16, 48), (Power.HIGH, 2, 2, 24, 56)],
)
def test_each_row_to_its_edge(power: Power, longest: int, most: int | None, prefix_v4: int, prefix_v6: int) -> None:
    """As the reference has it: what fits exactly is enrolled, and a second, a network or a bit more is not."""
    fitting = networks(most or 0, prefix_v4, prefix_v6)
    assert said(power, longest * DAY, fitting) is None
    assert said(power, longest * DAY + SECOND, fitting) == "power-too-long"
    if most is None:
        assert said(power, DAY, networks(50, 8, 32)) is None
        return
    assert said(power, DAY, ()) == "power-networks"
    assert said(power, DAY, networks(most + 1, 28, 64)) == "power-networks"
    assert said(power, DAY, networks(2, prefix_v4, prefix_v6 - 1)) == "power-networks"
    assert said(power, DAY, networks(1, prefix_v4 - 1, None)) == "power-networks"


def test_nothing_is_low_that_changes_something() -> None:
    """Whatever else is only read; and an administrator is of high power without any right."""
    read, write = EnrolledRight("data", "read", "/a/"), EnrolledRight("data", "write", "/a/")
    assert least_power([read, EnrolledRight("data", "list", "/")], is_admin=False) is Power.LOW
    assert least_power([read, write], is_admin=False) is Power.MEDIUM
    assert least_power([], is_admin=True) is Power.HIGH
    with pytest.raises(UsageError, match="medium power, not low"):
        check_power(Power.LOW, least=Power.MEDIUM, lifetime=DAY, networks=())
