"""Reading ``policy.toml`` and ``trust.toml``: TOML to a typed model, and one clear error for anything not in the format.

A key we do not know is refused and named. A misspelt ``acess = "token"`` that is silently skipped would leave the default in
force, and the owner of the service would believe otherwise.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from certauth.errors import ConfigError

MAX_DOCUMENT = 1024 * 1024
"""Bytes; a document is written by hand, and a wrong path must not fill the memory."""


class Model(BaseModel):
    """The base of every table in our documents: unknown keys refused, values frozen and of exactly the written type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


M = TypeVar("M", bound=Model)


def read_document(path: Path) -> bytes:
    """The bytes of a document; ``ConfigError`` (``unreadable``) if it cannot be read or is larger than ``MAX_DOCUMENT``."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_DOCUMENT + 1)
    except OSError as error:
        hint = "check the path, and make it readable for the user that runs the service"
        raise ConfigError("unreadable", f"cannot read {path}: {error.strerror}", hint=hint) from error
    if len(data) > MAX_DOCUMENT:
        raise ConfigError("unreadable", f"{path} is larger than {MAX_DOCUMENT} bytes", hint="check the path")
    return data


def parse_document(data: bytes, model: type[M], *, where: str, code: str) -> M:
    """``data`` as ``model``; ``ConfigError`` ``unknown-key`` for a key we do not know, ``code`` for everything else."""
    try:
        return model.model_validate(tomllib.loads(data.decode()))
    except UnicodeDecodeError as error:
        raise ConfigError(code, f"{where} is not UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(code, f"{where} is not TOML: {error}") from error
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        unknown = [_place(p["loc"]) for p in problems if p["type"] == "extra_forbidden"]
        if unknown:
            raise ConfigError(
                "unknown-key", f"{where}: {', '.join(unknown)} is not a key of this format", hint="check the spelling"
            ) from error
        first = problems[0]
        raise ConfigError(code, f"{where}: {_place(first['loc'])}: {first['msg']}") from error


def _place(location: tuple[int | str, ...]) -> str:
    """``("route", 2, "methods", 0)`` as ``route[3].methods[1]``, counted from one as people do."""
    text = ""
    for part in location:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "the document"
