"""The program ``certauth``: nouns then verbs, one command for the user, the facility and the service owner.

Nothing heavy is imported here: every command is mounted by import string and loaded when it is used.
"""

from __future__ import annotations

import click

from certauth import __version__
from certauth.cli.output import Group, Mount

root = Group(
    "certauth",
    help="Who may do what, across scientific facilities, provably.\n\n"
    "Log in once, receive a short-lived certificate, derive narrow tokens from it, call services with both.",
    context_settings={"help_option_names": ["-h", "--help"]},
    mounts={
        "login": Mount(target="certauth.cli.login:login", help="Prove who you are and receive a certificate."),
        "logout": Mount(target="certauth.cli.login:logout", help="Delete the stored key, certificate and tokens."),
        "whoami": Mount(target="certauth.cli.login:whoami", help="Say whose certificate is stored, and until when."),
        "status": Mount(target="certauth.cli.login:status", help="Show every stored credential and where it is kept."),
        "renew": Mount(target="certauth.cli.renew:renew", help="Replace your certificate and its tokens by new ones."),
        "agent": Mount(target="certauth.cli.agent:agent", help="Hand long-running work a part of your rights."),
        "token": Mount(target="certauth.cli.token:group", help="Mint, narrow, delegate and read tokens."),
        "cert": Mount(target="certauth.cli.cert:group", help="Read certificates."),
        "call": Mount(target="certauth.cli.call:call", help="Make one HTTPS request with your certificate and a token."),
        "audit": Mount(target="certauth.cli.audit:group", help="Verify logs, prove entries, check receipts."),
        "signer": Mount(target="signer.cli:group", help="Run a facility's signer.", extra="signer"),
        "policy": Mount(target="policy.cli:group", help="Protect a service.", extra="signer"),
    },
)
root = click.version_option(__version__, "-V", "--version", prog_name="certauth", message="%(prog)s %(version)s")(root)


def main() -> None:
    """The console script."""
    root.main()
