"""Where a token's text comes from: a stored name, a file, standard input, or where WLCG tools look. Never the command line.

A command line is visible to every user of a machine and is kept in shell histories; text that looks like a token there is
refused before it is used (and not repeated in the message).
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from certauth.client.profile import Profile
from certauth.errors import CertauthError, UsageError
from certauth.names import label

MAX_TOKEN_FILE = 64 * 1024
_LIST = "'certauth token list' shows the stored ones"
_LOOKS_LIKE_TOKEN = re.compile(r"[A-Za-z0-9_=.-]{100,}")


def read_token(source: str | None, *, profile: Profile | None, environment: Mapping[str, str], stdin: BinaryIO) -> str:
    """The token's text, unverified.

    ``source`` is ``-`` for standard input, the name of a token stored in ``profile``, or a file; ``None`` stands for WLCG
    discovery (``discover``). Raises ``UsageError``: ``no-token``, ``token-in-arguments``, ``token-unreadable``.
    """
    if source is None:
        found = discover(environment)
        if found is None:
            raise UsageError(
                "no-token", "no token was named and none is in the environment", hint="name one of 'certauth token list'"
            )
        return found
    if source == "-":
        return _text(stdin.read(MAX_TOKEN_FILE + 1), "standard input")
    if _LOOKS_LIKE_TOKEN.fullmatch(source) and not is_file(Path(source)):
        raise UsageError(
            "token-in-arguments",
            "a token does not belong on the command line, where others can see it",
            hint="give its name, a file, or - for standard input",
        )
    stored = None if profile is None or not is_name(source) else profile.token(source)
    return stored if stored is not None else read_file(Path(source))


def discover(environment: Mapping[str, str]) -> str | None:
    """WLCG bearer token discovery, in its order; the first place that is set counts, ``None`` if none is.

    ``BEARER_TOKEN``, the file ``BEARER_TOKEN_FILE``, and ``bearer_file``. What is there and holds no token is an error, not a
    reason to look further (WLCG Bearer Token Discovery v1.0).
    """
    if environment.get("BEARER_TOKEN", "").strip():
        return _text(environment["BEARER_TOKEN"].encode("utf-8", "replace"), "BEARER_TOKEN")
    if environment.get("BEARER_TOKEN_FILE"):
        return read_file(Path(environment["BEARER_TOKEN_FILE"]))
    path = bearer_file(environment)
    return read_file(path, own=True) if path.is_file() else None


def bearer_file(environment: Mapping[str, str]) -> Path:
    """Where tools look for a token if no variable names one: ``bt_u<uid>`` in ``$XDG_RUNTIME_DIR``, else in the temporary
    directory. There, anybody can make a file: one that is not the user's own is refused when it is read.
    """
    return Path(environment.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / f"bt_u{os.geteuid()}"


def is_name(text: str) -> bool:
    """Whether a token could be stored under ``text``."""
    try:
        label(text, "the name of a token")
    except CertauthError:
        return False  # a path, then
    return True


def read_stored(profile: Profile, name: str) -> str:
    """The text of the token stored under ``name``; ``UsageError`` (``token-unreadable``) if there is none."""
    text = profile.token(name)
    if text is None:
        raise UsageError("token-unreadable", f"there is no stored token {name!r}", hint=_LIST)
    return text


def is_file(path: Path) -> bool:
    """Whether ``path`` is a file; text that cannot be a path is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # longer than a file name can be
        return False


def read_file(path: Path, *, own: bool = False) -> str:
    """The token in a file of at most 64 KiB; ``own``: which must be the user's. ``UsageError`` (``token-unreadable``)."""
    try:
        with path.open("rb") as file:
            if own and os.fstat(file.fileno()).st_uid not in (os.geteuid(), 0):
                raise UsageError(
                    "token-unreadable",
                    f"{path} was put there by another user",
                    hint="name your token, or set XDG_RUNTIME_DIR to a directory of your own",
                )
            return _text(file.read(MAX_TOKEN_FILE + 1), str(path))
    except OSError as error:
        raise UsageError(
            "token-unreadable",
            f"there is no stored token and no readable file {str(path)[:200]!r}",
            hint=_LIST,
        ) from error


def _text(data: bytes, where: str) -> str:
    text = data.decode("ascii", "replace").strip()
    if not text or len(data) > MAX_TOKEN_FILE or "\n" in text or not text.isprintable():
        raise UsageError("token-unreadable", f"{where} does not hold one token", hint="it has to be one line of text")
    return text
