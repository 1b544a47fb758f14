"""``certauth`` in a world whose clock is ahead: ``python -m tests.journeys.ahead SECONDS <arguments of certauth>``.

Certificates last a minute at least. Where this world is almost a minute ahead of the signer they last seconds, and a journey
through several of them is one of seconds too.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta

from certauth import clock


def main() -> None:
    """Put the clock ahead before anything has looked at it."""
    ahead = timedelta(seconds=float(sys.argv.pop(1)))
    clock.system_clock = lambda: datetime.now(UTC) + ahead
    from certauth.cli import main as certauth

    sys.argv[0] = "certauth"
    certauth()


if __name__ == "__main__":
    main()
