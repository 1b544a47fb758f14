"""Rewrite history: copy a signer's database, take its guards out, and change one byte of one entry of the log.

python tests/demo/forge.py signer.db forged.db
"""

from __future__ import annotations

import contextlib
import sqlite3
import sys

ENTRY = 7


def main(database: str, forged: str) -> None:
    """Write ``forged``, which is ``database`` but for one digit."""
    with contextlib.closing(sqlite3.connect(database)) as source, contextlib.closing(sqlite3.connect(forged)) as target:
        source.backup(target)
        for (trigger,) in target.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            target.execute(f"DROP TRIGGER {trigger}")
        (body,) = target.execute("SELECT body FROM log_entry WHERE seq = ?", (ENTRY,)).fetchone()
        target.execute("UPDATE log_entry SET body = ? WHERE seq = ?", (body.replace(b'"v":1', b'"v":2', 1), ENTRY))
        target.commit()
    print(f'in entry {ENTRY}, "v":1 is now "v":2')


if __name__ == "__main__":
    main(*sys.argv[1:])
