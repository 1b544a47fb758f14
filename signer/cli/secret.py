"""Handing out a one-time code: the only moment at which it exists as text."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import click

from certauth.encoding import Json
from certauth.errors import UsageError
from certauth.files import PRIVATE
from signer.codes import CODE_BYTES, make_code

output_option = click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the code to this new file, mode 0600; not shown."
)


class HandedOut:
    """A new code, shown once or written to a file of its own; made before it is recorded, worth nothing until then."""

    def __init__(self, output: Path | None) -> None:
        """Raises ``UsageError`` (``output-exists``), or ``OSError`` if the file cannot be made."""
        self.code = make_code(secrets.token_bytes(CODE_BYTES))
        self._output = output
        if output is not None:
            self._write(output)

    def _write(self, output: Path) -> None:
        try:
            descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, PRIVATE)
        except FileExistsError as error:
            raise UsageError("output-exists", f"{output} exists already", hint="name a new file") from error
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            os.fchmod(file.fileno(), PRIVATE)
            file.write(f"{self.code}\n")
            file.flush()
            os.fsync(file.fileno())

    @contextlib.contextmanager
    def kept_if_recorded(self) -> Iterator[None]:
        """Record the code within; if that fails, no file stays with a code that opens nothing."""
        try:
            yield
        except BaseException:
            if self._output is not None:
                self._output.unlink(missing_ok=True)
            raise

    def members(self) -> dict[str, Json]:
        """For ``--json``: the code, or where it is."""
        return {"code": None if self._output else self.code, "output": str(self._output) if self._output else None}

    def lines(self) -> list[str]:
        """For people."""
        return [f"the code is in {self._output}" if self._output else f"the code, shown this once: {self.code}"]

    def __repr__(self) -> str:
        return "HandedOut()"
