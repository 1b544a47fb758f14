"""The code that a person types to say which login they mean, and how often strangers may guess one (RFC 8628 §5.1, §6.1).

A code has 8 of 24 characters: no vowels, so that it spells nothing, and nothing that looks like something else. There are
24^8 = 1.1e11 of them. Per network address 10 wrong ones are answered at once and then one a minute; from everywhere together
600 at once and then 10 a second. Within the ten minutes of a login that is at most 600 + 6000 guesses:

    at one certain login                            6600 / 24^8         = 6e-8
    at any of the 2048 that fit into memory         6600 * 2048 / 24^8  = 1.3e-4, all of them open at the same time

And a hit is worth little: the login of a stranger can then be finished as *oneself*, under one's own recorded name.
"""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from certauth.errors import UnavailableError

ALPHABET: Final = "BCDFGHJKMNPQRTVWXYZ34679"
LENGTH: Final = 8
_SEPARATORS: Final = dict.fromkeys(map(ord, " \t-_.\u00a0\u2010\u2011\u2012\u2013\u2014\u2212"))
_LONGEST_TYPED: Final = 64
_MAX_NETWORKS: Final = 10_000


def new_code(entropy: Callable[[int], bytes]) -> str:
    """A code, each as likely as any other."""
    even = 256 - 256 % len(ALPHABET)  # bytes from there on would make the first characters likelier
    code = ""
    while len(code) < LENGTH:
        code += "".join(ALPHABET[byte % len(ALPHABET)] for byte in entropy(2 * LENGTH) if byte < even)
    return code[:LENGTH]


def in_groups(code: str) -> str:
    """The code as it is shown: ``WXYZ-7K3M``."""
    return f"{code[: LENGTH // 2]}-{code[LENGTH // 2 :]}"


def read_code(typed: str) -> str | None:
    """The code somebody typed, in any case and grouping; ``None`` for what is none."""
    if len(typed) > _LONGEST_TYPED:
        return None
    code = typed.translate(_SEPARATORS).upper()
    return code if len(code) == LENGTH and set(code) <= set(ALPHABET) else None


def network_of(address: str | None) -> str:
    """Whom to count an address to: IPv4 by itself, IPv6 by its /64, within which one machine may use any address."""
    if address is None:
        return "local"
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        mapped = parsed.ipv4_mapped
        return str(ipaddress.ip_network((parsed, 64), strict=False)) if mapped is None else str(mapped)
    return str(parsed)


class Guesses:
    """How many wrong codes were typed lately, per network and in all; bounded memory, the longest unseen is forgotten first.

    A budget is the moment until which it is spent (a leaky bucket): every wrong code moves it on by ``period`` seconds.
    """

    def __init__(self, *, burst: int = 10, period: float = 60, total_burst: int = 600, total_period: float = 0.1) -> None:
        self._ahead, self._period = (burst - 1) * period, period
        self._total_ahead, self._total_period = (total_burst - 1) * total_period, total_period
        self._spent: OrderedDict[str, float] = OrderedDict()
        self._total = -math.inf

    def check(self, network: str, *, at: float) -> None:
        """Raise ``UnavailableError`` (``too-many-tries``) unless one more wrong code is within both budgets.

        To be asked before a code is compared: beyond its budget a guess teaches nothing.
        """
        late = max(self._spent.get(network, at) - at - self._ahead, self._total - at - self._total_ahead)
        if late > 0:
            raise UnavailableError(
                "too-many-tries",
                "too many wrong codes were typed",
                hint="wait, then type the code that your terminal shows",
                retry_after=math.ceil(late),
            )

    def wrong(self, network: str, *, at: float) -> None:
        """Count a wrong code."""
        self._spent[network] = max(self._spent.pop(network, at), at) + self._period
        self._total = max(self._total, at) + self._total_period
        if len(self._spent) > _MAX_NETWORKS:
            self._spent.popitem(last=False)
