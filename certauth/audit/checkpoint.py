"""Checkpoints: what a log says about itself, signed (C2SP tlog-checkpoint in a C2SP signed-note, Ed25519).

    example.org/audit                                   origin: which log
    42                                                  how many entries
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=        the root of its tree
                                                        an empty line
    — example.org/audit Az3grlgt…                       name of the key, and base64 of key hash and signature

The log's key bears the origin as its name, so a key can never vouch for another log. Signatures by unknown keys (witnesses)
are carried and ignored. Extension lines are refused: nobody could audit them.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from certauth.audit.tree import HASH_BYTES, MAX_SIZE
from certauth.encoding import b64, from_b64
from certauth.errors import LogError
from certauth.keys import PublicKey, SigningKey, raw
from certauth.small_order import is_small_order

MAX_NOTE = 64 * 1024
MAX_SIGNATURES = 64
_ED25519 = b"\x01"
_ORIGIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:-]{0,254}")
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
_SIGNATURE = re.compile(r"— ([^\s+]+) ([A-Za-z0-9+/]+={0,2})")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")


def check_origin(origin: str) -> str:
    """Return ``origin`` if it can name a log (and its key); else raise ``LogError`` (``bad-origin``)."""
    if not _ORIGIN.fullmatch(origin):
        raise LogError("bad-origin", f"{origin[:80]!r} cannot name a log", hint="use something like signer.als.example/audit")
    return origin


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """The public key of one log under the name it signs with; its text form is ``name+hash+base64``."""

    name: str
    public_key: Ed25519PublicKey

    @classmethod
    def make(cls, name: str, public_key: PublicKey) -> VerifierKey:
        """Raise ``LogError``: ``bad-origin`` for a name that cannot be one, ``bad-log-key`` unless the key is Ed25519."""
        if not isinstance(public_key, Ed25519PublicKey):
            raise LogError(
                "bad-log-key", "checkpoints are signed with Ed25519 keys only", hint="make an Ed25519 key for the log"
            )
        return cls(check_origin(name), public_key)

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """Read the text form; raise ``LogError`` (``vkey-malformed``) unless the hash fits name and key."""
        name, _, rest = text.partition("+")
        digest, _, encoded = rest.partition("+")
        try:
            material = from_b64(encoded)
            if material[:1] != _ED25519:
                raise ValueError("another signature algorithm")
            if is_small_order(material[1:]):
                raise ValueError("a key that anybody can sign for")
            key = cls.make(name, Ed25519PublicKey.from_public_bytes(material[1:]))
        except (ValueError, LogError) as error:
            raise LogError("vkey-malformed", "this is not the verifier key of a log", hint="name+hash+base64") from error
        if digest != key.key_hash.hex():
            raise LogError(
                "vkey-malformed",
                "the verifier key's hash does not fit its name and key",
                hint="take the log key from the facility's bundle as it is written there",
            )
        return key

    @property
    def key_hash(self) -> bytes:
        """Four bytes that tell keys of one name apart; a hint, not a commitment."""
        return hashlib.sha256(self.name.encode() + b"\n" + _ED25519 + raw(self.public_key)).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.key_hash.hex()}+{b64(_ED25519 + raw(self.public_key))}"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A log's origin, size and root."""

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        check_origin(self.origin)
        if not 0 <= self.size <= MAX_SIZE or len(self.root) != HASH_BYTES:
            raise LogError(
                "checkpoint-malformed",
                "a checkpoint has a size below 2^63 and a root of 32 bytes",
                hint="get the checkpoint from the signer again: /v1/log/checkpoint",
            )

    def text(self) -> str:
        """The three lines that are signed."""
        return f"{self.origin}\n{self.size}\n{b64(self.root)}\n"

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Read the three lines; raise ``LogError`` (``checkpoint-malformed``) for any other spelling of them."""
        lines = text.split("\n")
        if len(lines) != 4 or lines[3] or not _SIZE.fullmatch(lines[1]):
            raise LogError(
                "checkpoint-malformed",
                "a checkpoint is three lines: origin, size and root",
                hint="get the checkpoint from the signer again: /v1/log/checkpoint",
            )
        try:
            return cls(lines[0], int(lines[1]), from_b64(lines[2]))
        except (ValueError, LogError) as error:
            raise LogError(
                "checkpoint-malformed",
                "the checkpoint's origin, size or root is not well-formed",
                hint="get the checkpoint from the signer again: /v1/log/checkpoint",
            ) from error


def sign(checkpoint: Checkpoint, *, key: SigningKey) -> str:
    """The checkpoint as a note signed by the log's key, under the log's origin.

    The caller keeps the promise this makes: never two roots for one size, never a size below one already signed.
    """
    verifier = VerifierKey.make(checkpoint.origin, key.public_key)
    text = checkpoint.text()
    return f"{text}\n— {verifier.name} {b64(verifier.key_hash + key.sign(text.encode()))}\n"


def open_note(unverified_note: str | bytes, vkey: VerifierKey) -> Checkpoint:
    """The checkpoint inside a note, if the log's key signed it.

    1. the note is short, UTF-8 and free of control characters (signed-note "Format");
    2. it is a text, an empty line and well-formed signature lines;
    3. exactly one line is by this key name and hash, and that signature holds over the text as it stands;
    4. the text is a checkpoint of this log.

    Raises ``LogError``: ``note-malformed``, ``note-unsigned``, ``note-signature``, ``checkpoint-malformed``, ``foreign-log``.
    """
    # 1
    note = _note_text(unverified_note)
    # 2
    text, separator, block = note.rpartition("\n\n")
    lines = block.split("\n")
    if not separator or lines.pop() or not 0 < len(lines) <= MAX_SIGNATURES:
        raise LogError(
            "note-malformed",
            "a signed note is a text, an empty line and signature lines",
            hint="get the checkpoint from the signer again: /v1/log/checkpoint",
        )
    text += "\n"
    # 3
    ours = [signature for name, key_hash, signature in map(_signature, lines) if (name, key_hash) == (vkey.name, vkey.key_hash)]
    if len(ours) != 1:
        raise LogError(
            "note-unsigned",
            f"the note is not signed, once, by the log key {vkey.name}+{vkey.key_hash.hex()}",
            hint="compare the log key with the one in the facility's bundle",
        )
    try:
        vkey.public_key.verify(ours[0], text.encode())
    except InvalidSignature as error:
        raise LogError(
            "note-signature",
            f"the signature by {vkey.name} does not hold",
            hint="get the checkpoint from the signer again; if it stays, tell the facility",
        ) from error
    # 4
    checkpoint = Checkpoint.parse(text)
    if checkpoint.origin != vkey.name:
        raise LogError(
            "foreign-log",
            f"the checkpoint is of {checkpoint.origin}, the key of {vkey.name}",
            hint="verify it under the log key of the facility that wrote it",
        )
    return checkpoint


def _note_text(note: str | bytes) -> str:
    try:
        data = note.encode() if isinstance(note, str) else note
        text = data.decode()
    except UnicodeError as error:
        raise LogError(
            "note-malformed", "the note is not UTF-8", hint="get the checkpoint from the signer again: /v1/log/checkpoint"
        ) from error
    if len(data) > MAX_NOTE or _CONTROL.search(text):
        raise LogError(
            "note-malformed",
            f"a signed note has at most {MAX_NOTE} bytes and no control characters",
            hint="get the checkpoint from the signer again: /v1/log/checkpoint",
        )
    return text


def _signature(line: str) -> tuple[str, bytes, bytes]:
    match = _SIGNATURE.fullmatch(line)
    try:
        data = from_b64(match[2]) if match else b""
    except ValueError:
        data = b""
    if match is None or len(data) < 5:
        raise LogError(
            "note-malformed",
            "a signature line is '— name base64'",
            hint="get the checkpoint from the signer again: /v1/log/checkpoint",
        )
    return match[1], data[:4], data[4:]
