"""``certauth token``: everything a holder does with tokens, each command in the module of its step.

mint                        mint       get one from the signer
attenuate delegate seal     derive     offline, from a token
request attest append       vouch      offline, with another facility
inspect verify              read       what it says, whether it is genuine
list get-token forget       stored     the tokens kept here
revoke                      revoke     end one early
"""

from __future__ import annotations

from certauth.cli.output import Mount
from certauth.cli.output import group as make_group


def _mount(module: str, attribute: str, text: str) -> Mount:
    return Mount(target=f"certauth.cli.token.{module}:{attribute}", help=text)


group = make_group(
    "token",
    help="Mint, narrow, delegate and read tokens.",
    mounts={
        "mint": _mount("mint", "mint", "Get a token for a service, and store it."),
        "attenuate": _mount("derive", "attenuate", "Make a narrower token; offline."),
        "delegate": _mount("derive", "delegate", "Hand a token on to another certificate; offline."),
        "seal": _mount("derive", "seal", "Make a token that cannot be narrowed further."),
        "request": _mount("vouch", "request", "Ask another facility to vouch for a token's holder."),
        "attest": _mount("vouch", "attest", "Vouch, with a group's key, for whom a request is about."),
        "append": _mount("vouch", "append", "Put the answer to a request into the token."),
        "inspect": _mount("read", "inspect", "Say in words what a token allows, and what speaks against it now."),
        "verify": _mount("read", "verify", "Verify a token's signatures under a facility's keys."),
        "list": _mount("stored", "list_", "List the stored tokens."),
        "get-token": _mount("stored", "get_token", "Print a token that works, for another program."),
        "forget": _mount("stored", "forget", "Delete stored tokens."),
        "revoke": _mount("revoke", "revoke", "Make a token, or what was derived from it, worthless everywhere."),
    },
)
