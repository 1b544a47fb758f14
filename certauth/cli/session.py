"""``certauth logout``, ``whoami`` and ``status``: what is stored, said in one way everywhere."""

from __future__ import annotations

from datetime import datetime, timedelta

from certauth.certificates import describe
from certauth.cli import options
from certauth.cli.output import Result, Status, command, fields, table
from certauth.client.profile import Credential, Home, Profile
from certauth.clock import in_words, rfc3339, system_clock
from certauth.errors import CertauthError, LoginRequired, UsageError


def count(tokens: int) -> str:
    """A number of tokens as people say it."""
    return "1 token" if tokens == 1 else f"{tokens} tokens"


def facts_of(profile: Profile, credential: Credential, now: datetime) -> dict[str, object]:
    """A stored credential for programs."""
    facts = describe(credential.leaf, now=now)
    kept = {
        name: facts[name] for name in ("principal", "fingerprint", "serial", "not_before", "not_after", "state", "assurance")
    }
    return {"domain": str(profile.domain), "signer": profile.signer().url, "stored": str(profile.directory)} | kept


def who(profile: Profile, credential: Credential, now: datetime) -> str:
    """A stored credential for people."""
    end = credential.leaf.not_valid_after_utc
    left = end - now
    until = f"{rfc3339(end)}, {f'{in_words(left)} left' if left > timedelta(0) else f'expired {in_words(left)}'}"
    return fields(
        [
            ("who", credential.principal),
            ("until", until),
            ("signer", profile.signer().url),
            ("stored in", profile.directory),
            ("undo with", "certauth logout"),
        ]
    )


@command(example="certauth whoami\ncertauth whoami --json")
@options.profile_option
def whoami(profile_name: str | None) -> Result:
    """Say whose certificate is stored, and until when.

    Exit status 4 if there is none or it has run out; the hint is the command to run.

    JSON: domain, signer, stored, principal, fingerprint, serial, not_before, not_after, state, assurance.
    """
    profile, now = options.active(profile_name), system_clock()
    credential = profile.credential(now=now)
    return Result(data=facts_of(profile, credential, now), text=who(profile, credential, now))


@command(example="certauth status")
def status() -> Result:
    """Show every stored credential: where, whose, until when, how many tokens.

    Exit status 4 if there is no valid certificate at all.

    JSON: home, active, profiles (a list of domain, signer, state, principal, not_after, tokens).
    """
    home, now = options.home(), system_clock()
    profiles = [_profile_facts(profile, now) for profile in home.profiles()]
    if not profiles:
        home.active()  # says that, and how, to log in
    active = _active_domain(home)
    rows = [
        (
            "*" if one["domain"] == active else "",
            one["domain"],
            one["principal"] or "-",
            one["state"],
            one["not_after"] or "-",
            one["tokens"],
        )
        for one in profiles
    ]
    text = table(("", "domain", "principal", "state", "until", "tokens"), rows) + f"\n\nstored in {home.directory}"
    good = any(one["state"] == "valid" for one in profiles)
    return Result(
        data={"home": str(home.directory), "active": active, "profiles": profiles},
        text=text,
        status=Status.DONE if good else Status.LOGIN,
    )


def _active_domain(home: Home) -> str | None:
    try:
        return str(home.active().domain)
    except (LoginRequired, UsageError):
        return None


def _profile_facts(profile: Profile, now: datetime) -> dict[str, object]:
    facts: dict[str, object] = {
        "domain": str(profile.domain),
        "signer": profile.signer().url,
        "tokens": len(profile.token_names()),
    }
    try:
        credential = profile.stored_credential()
    except CertauthError as error:
        return facts | {"state": error.code, "principal": None, "not_after": None}
    end = credential.leaf.not_valid_after_utc
    state = "valid" if now < end else "expired"
    return facts | {"state": state, "principal": str(credential.principal), "not_after": rfc3339(end)}


@command(example="certauth logout")
@options.profile_option
def logout(profile_name: str | None) -> Result:
    """Delete the stored key, certificate and tokens.

    Receipts and the facility's trust bundle stay. What was delegated to others goes on working until it ends by itself;
    the facility can revoke it.

    JSON: domain, tokens (how many were deleted).
    """
    profile = options.active(profile_name)
    tokens = profile.forget()
    return Result(
        data={"domain": str(profile.domain), "tokens": tokens},
        text=f"Deleted the key, the certificate and {count(tokens)} for {profile.domain}.",
    )
