"""A WebSocket client that is not ours: it says hello with a certificate and a token, sends one message and prints the answers.

python tests/demo/live.py wss://127.0.0.1:8444/live/run7 CREDENTIALS TOKEN ROOTS
"""

from __future__ import annotations

import ssl
import sys
from pathlib import Path

from websockets.sync.client import connect


def main(url: str, credentials: str, token: str, roots: str) -> None:
    """Connect with the certificate and key in the directory ``credentials`` and the token of that name in it."""
    home = Path(credentials)
    context = ssl.create_default_context(cafile=roots)
    context.load_cert_chain(home / "chain.pem", home / "key.pem")
    headers = {"Authorization": f"Bearer {(home / 'tokens' / token).read_text().strip()}"}
    with connect(url, ssl=context, additional_headers=headers) as connection:
        print(connection.recv(timeout=5))
        connection.send("beam on")
        print(connection.recv(timeout=5))


if __name__ == "__main__":
    main(*sys.argv[1:])
