"""``certauth signer key list | prepare | activate | retire | taint``: the keys that sign tokens, from first to last."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import click

from certauth import keys
from certauth.cli.output import Result, command, table
from certauth.clock import rfc3339, system_clock
from certauth.profiles import BACKDATE
from signer.cli.common import Facility, acting, example_keys_option, facility, reason_option, settings_option
from signer.key_changes import Act, KeyChanges, needed_until, signs_from
from signer.key_index import KeyEntry, State, Use

_use_argument = click.argument("use", type=click.Choice([str(use) for use in Use]))
_kid_argument = click.argument("kid", metavar="KID")


@command(name="list", example="certauth signer key list")
@settings_option
@example_keys_option
def list_(settings_file: Path, *, allow_example_keys: bool) -> Result:
    """List the facility's keys: what each is for, its id, its state, and since when.

    Of a prepared key it is told from when it may sign, of a retired one until when tokens need it.

    JSON: keys, each with use, kid, state, since, signs_from, needed_until; bundle_sequence.
    """
    with facility(settings_file, allow_example_keys=allow_example_keys) as place:
        current = place.keys.current()
        listed = [*_fixed(place), *(_members(place, entry) for entry in current.index.entries)]
    rows = [(one["use"], one["kid"], one["state"], one["since"], _note(one)) for one in listed]
    data: dict[str, object] = {"keys": listed, "bundle_sequence": current.bundle.sequence}
    lost = "" if current.problem is None else f"\nA key that signs cannot be loaded: {current.problem.message}."
    return Result(data=data, text=table(("use", "key id", "state", "since", ""), rows) + lost)


@command(example="certauth signer key prepare token --reason 'yearly change of keys'")
@_use_argument
@reason_option
@settings_option
@example_keys_option
def prepare(use: str, reason: str, settings_file: Path, *, allow_example_keys: bool) -> Result:
    """Make the next key for USE and publish it, so that whoever verifies tokens knows it before it signs.

    JSON: changed, each with the members of 'key list'; bundle_sequence.
    """
    with _changing(settings_file, reason, allow_example_keys=allow_example_keys) as (place, changes):
        act = changes.prepare(Use(use))
        (new,) = act.changed
        sentence = f"The {use} key {new.kid} is published. It may sign from {rfc3339(signs_from(new, place.keys.current()))}."
        return _result(place, act, f"{sentence}\nThen: certauth signer key activate {use} --reason …")


@command(example="certauth signer key activate token --reason 'yearly change of keys'")
@_use_argument
@click.option("--now", "early", is_flag=True, help="Also if not everybody can know the key yet.")
@reason_option
@settings_option
@example_keys_option
def activate(use: str, reason: str, settings_file: Path, *, early: bool, allow_example_keys: bool) -> Result:
    """Let the prepared key for USE sign from now on. What the former one signed stays good until it ends.

    A running service takes it within a second.

    JSON: as of 'key prepare'.
    """
    with _changing(settings_file, reason, allow_example_keys=allow_example_keys) as (place, changes):
        act = changes.activate(Use(use), early=early)
        former, new = sorted(act.changed, key=lambda entry: entry.state is State.ACTIVE)
        end = rfc3339(needed_until(former, place.store))
        sentence = f"The {use} key {new.kid} signs now. Tokens of {former.kid} are good until they end, the last at {end}."
        return _result(place, act, f"{sentence}\nThen: certauth signer key retire {former.kid} --reason …")


@command(example="certauth signer key retire 5f0c2a91 --reason 'yearly change of keys'")
@_kid_argument
@click.option("--force", is_flag=True, help="Also if tokens that it signed are still in use: they are refused then.")
@reason_option
@settings_option
@example_keys_option
def retire(kid: str, reason: str, settings_file: Path, *, force: bool, allow_example_keys: bool) -> Result:
    """Publish the key KID no more: a former one whose tokens have ended, or a prepared one that is not wanted.

    JSON: as of 'key prepare'.
    """
    with _changing(settings_file, reason, allow_example_keys=allow_example_keys) as (place, changes):
        act = changes.retire(kid, early=force)
        return _result(place, act, f"The key {kid} is published no more.")


@command(example="certauth signer key taint 5f0c2a91 --reason 'backup tape lost'")
@_kid_argument
@reason_option
@settings_option
@example_keys_option
def taint(kid: str, reason: str, settings_file: Path, *, allow_example_keys: bool) -> Result:
    """Withdraw the key KID, because somebody else may have it: every token that it signed is refused from now on.

    If it is the one that signs, the prepared key takes over in the same act, or a new one if none is prepared. The reason is
    in the feed of revocations, which everybody may read.

    JSON: as of 'key prepare'.
    """
    with _changing(settings_file, reason, allow_example_keys=allow_example_keys) as (place, changes):
        act = changes.taint(kid)
        entry = act.index.named(kid)
        lines = [f"The {entry.use} key {kid} is withdrawn. Services refuse its tokens once they have read the next feed."]
        successor = act.index.active(entry.use)
        if successor in act.changed:
            lines.append(
                f"{successor.kid} signs now. Whoever verifies tokens has to fetch the new keys; users need new tokens."
            )
        return _result(place, act, "\n".join(lines))


@contextlib.contextmanager
def _changing(settings_file: Path, reason: str, *, allow_example_keys: bool) -> Iterator[tuple[Facility, KeyChanges]]:
    with facility(settings_file, allow_example_keys=allow_example_keys) as place:
        yield (
            place,
            KeyChanges(
                authority=place.authority,
                ring=place.keys,
                store=place.store,
                ledger=place.ledger,
                clock=system_clock,
                by=acting(),
                why=reason,
            ),
        )


def _result(place: Facility, act: Act, text: str) -> Result:
    data = {"changed": [_members(place, entry) for entry in act.changed], "bundle_sequence": act.index.sequence}
    return Result(data=data, text=text)


def _members(place: Facility, entry: KeyEntry) -> dict[str, object]:
    prepared, retired = entry.state is State.PREPARED, entry.state is State.RETIRED
    return {
        "use": str(entry.use),
        "kid": entry.kid,
        "state": str(entry.state),
        "since": rfc3339(entry.since),
        "signs_from": rfc3339(signs_from(entry, place.keys.current())) if prepared else None,
        "needed_until": rfc3339(needed_until(entry, place.store)) if retired else None,
    }


def _fixed(place: Facility) -> Iterator[dict[str, object]]:
    """The keys that no command here changes. They were made with the facility, or with the certificate that they are for."""
    authority = place.authority
    made = authority.root.not_valid_before_utc + BACKDATE
    issued = authority.issuing.not_valid_before_utc + BACKDATE
    public = {
        "root": (authority.root.public_key(), made),
        "issuing": (authority.issuing_key.public_key, issued),
        "log": (authority.log_key.public_key, made),
        "feed": (authority.feed_key.public_key, made),
    }
    for use, (key, since) in public.items():
        if isinstance(key, keys.PublicKey):
            members = {"use": use, "kid": keys.key_id(key), "state": str(State.ACTIVE), "since": rfc3339(since)}
            yield {**members, "signs_from": None, "needed_until": None}


def _note(members: dict[str, object]) -> str:
    if members["signs_from"]:
        return f"may sign from {members['signs_from']}"
    return f"needed until {members['needed_until']}" if members["needed_until"] else ""
