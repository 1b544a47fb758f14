"""Checkpoints and notes: published ones verify, altered ones do not."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certauth.audit.checkpoint import MAX_NOTE, MAX_SIGNATURES, Checkpoint, VerifierKey, check_origin, open_note, sign
from certauth.audit.tree import EMPTY_ROOT, MAX_SIZE
from certauth.errors import LogError
from certauth.keys import Algorithm, generate
from tests.certauth.audit.making import ORIGIN, Log, key, vkey

# Checkpoints of the test log that Tessera publishes, and its verifier key.
TESSERA_KEY = "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx"
TESSERA_0 = (
    "example.com/log/testdata\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n— example.com/log/testdata "
    "M9e0lhxJACzE1KoUdqKuPa+9p6R7dSW8BlEvrg/noo8FkGg6PbJoRNOcdjqjOq89wVvTA60eubCc4oufo5BvIVEgtQc=\n"
)
TESSERA_15 = (
    "example.com/log/testdata\n15\nrKbDipCvhuX1GZ7g5BBe8sA6BbJ7ja/1nk427v383cs=\n\n— example.com/log/testdata "
    "M9e0luh4jTG+UMBqOUo9/q+yAEvx1ilBEniMvjf1zfcBOhg+CKubMt53MvIt/uEWP6zdkdIQzd/fmwlM/dlPWF74ewI=\n"
)
# The note and key of the Go implementation's documentation: a good signature over a text that is no checkpoint.
NEUMANN_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
NEUMANN = (
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
NOTE = Log.of(5).note()


def signed(text: str, *, origin: str = ORIGIN) -> str:
    """A note over any text at all, by the log's key."""
    verifier = vkey(origin=origin)
    return f"{text}\n— {origin} {base64.b64encode(verifier.key_hash + key().sign(text.encode())).decode()}\n"


def refusal(note: str | bytes, verifier: VerifierKey | None = None) -> str:
    """The code with which a note is refused."""
    with pytest.raises(LogError) as caught:
        open_note(note, verifier or vkey())
    return caught.value.code


def test_another_implementations_checkpoints_open() -> None:
    """Tessera's checkpoints of 0 and 15 entries are signed as we expect."""
    verifier = VerifierKey.parse(TESSERA_KEY)
    assert open_note(TESSERA_15, verifier).size == 15
    assert open_note(TESSERA_0.encode(), verifier) == Checkpoint("example.com/log/testdata", 0, EMPTY_ROOT)


def test_a_verifier_key_keeps_its_text() -> None:
    """Published keys read and print as themselves."""
    for text in (TESSERA_KEY, NEUMANN_KEY):
        assert str(VerifierKey.parse(text)) == text


def test_a_signed_text_that_is_no_checkpoint_is_refused() -> None:
    """Go's example note has a good signature, and that is not enough."""
    assert refusal(NEUMANN, VerifierKey.parse(NEUMANN_KEY)) == "checkpoint-malformed"


def test_what_was_signed_is_what_opens() -> None:
    """A checkpoint passes through a note unchanged."""
    assert open_note(NOTE, vkey()) == Log.of(5).checkpoint()


def test_every_altered_byte_of_a_note_is_refused() -> None:
    """Every byte replaced by every other, removed or doubled: none passes, and nothing but LogError is raised."""
    data = NOTE.encode()
    open_note(data, vkey())
    tried = 0
    for position in range(len(data)):
        for other in range(256):
            if other == data[position]:
                continue
            altered = data[:position] + bytes([other]) + data[position + 1 :]
            with pytest.raises(LogError):
                open_note(altered, vkey())
            tried += 1
        for altered in (
            data[:position] + data[position + 1 :],
            data[:position] + data[position : position + 1] + data[position:],
        ):
            with pytest.raises(LogError):
                open_note(altered, vkey())
    assert tried == 255 * len(data)


def test_another_key_does_not_open_the_note() -> None:
    """Neither a foreign key of the same name nor the same key under another name will do."""
    assert refusal(NOTE, vkey(seed=2)) == "note-unsigned"
    assert refusal(NOTE, vkey(origin="other.example/audit")) == "note-unsigned"


def test_a_foreign_signature_under_our_key_hash_is_refused() -> None:
    """The four bytes of key hash are a hint: a signature by another key behind them does not hold."""
    text = Log.of(5).checkpoint().text()
    forged = base64.b64encode(vkey().key_hash + key(2).sign(text.encode())).decode()
    assert refusal(f"{text}\n— {ORIGIN} {forged}\n") == "note-signature"


def test_a_key_cannot_vouch_for_another_log() -> None:
    """A checkpoint whose origin is not the key's name is refused, though the signature holds."""
    text = Checkpoint("other.example/audit", 5, bytes(32)).text()
    assert refusal(signed(text)) == "foreign-log"


def test_witness_signatures_are_carried_and_ignored() -> None:
    """Lines by other keys, of whatever length, do not disturb; without ours they do not help."""
    witness = "— witness.example " + base64.b64encode(b"witn" + bytes(2420)).decode() + "\n"
    assert open_note(NOTE + witness, vkey()).size == 5
    text = NOTE.partition("\n\n")[0]
    assert refusal(f"{text}\n\n{witness}") == "note-unsigned"


def test_a_second_line_by_the_same_key_is_refused() -> None:
    """Two signatures by the log's key in one note are a sign of tampering."""
    line = NOTE.rpartition("\n\n")[2]
    assert refusal(NOTE + line) == "note-unsigned"


@pytest.mark.parametrize(
    "note",
    [
        "",
        "\n\n",
        "text\n",
        "text\n\n",
        "text\n\n— a",
        "text\n\n— a AAAAAAAA",
        "text\n\nnot a signature\n",
        "— a AAAAAAA=\n",
        "text\n\n— a b+c AAAAAAA=\n",
        "text\n\n— a+b AAAAAAA=\n",
        "text\n\n— a AAAA\n",
        "text\n\n— a AAAAA\n",
        "text\n\n— a AAAAAAB=\n",
        "te\x00xt\n\n— a AAAAAAA=\n",
        "te\txt\n\n— a AAAAAAA=\n",
        "te\rxt\n\n— a AAAAAAA=\n",
        "te\ud800xt\n\n— a AAAAAAA=\n",
        b"te\xfft" + "\n\n— a AAAAAAA=\n".encode(),
        "text\n\n" + "— a AAAAAAA=\n" * (MAX_SIGNATURES + 1),
        "t" * MAX_NOTE + "\n\n— a AAAAAAA=\n",
    ],
)
def test_what_is_not_a_note_is_refused(note: str | bytes) -> None:
    """Missing parts, control characters, loose base64 and excess are malformed."""
    assert refusal(note) == "note-malformed"


def test_as_many_signatures_as_the_limit_are_fine() -> None:
    """The limit counts what is allowed."""
    assert open_note(NOTE + "— a AAAAAAA=\n" * (MAX_SIGNATURES - 1), vkey()).size == 5


def test_a_note_may_be_as_long_as_the_limit() -> None:
    """The limit of bytes is exact."""
    room = MAX_NOTE - len(NOTE.encode()) - len("—  AAAAAAA=\n".encode())
    assert open_note(f"{NOTE}— {'a' * room} AAAAAAA=\n", vkey()).size == 5
    assert refusal(f"{NOTE}— {'a' * (room + 1)} AAAAAAA=\n") == "note-malformed"


ROOT = base64.b64encode(bytes(32)).decode()


@pytest.mark.parametrize(
    "text",
    [
        f"{ORIGIN}\n5\n",
        f"{ORIGIN}\n5\n{ROOT}\nextension\n",
        f"{ORIGIN}\n05\n{ROOT}\n",
        f"{ORIGIN}\n+5\n{ROOT}\n",
        f"{ORIGIN}\n-5\n{ROOT}\n",
        f"{ORIGIN}\n5 \n{ROOT}\n",
        f"{ORIGIN}\n٥\n{ROOT}\n",
        f"{ORIGIN}\n{MAX_SIZE + 1}\n{ROOT}\n",
        f"{ORIGIN}\n{'9' * 20}\n{ROOT}\n",
        f"{ORIGIN}\n5\n{ROOT[:-4]}\n",
        f"{ORIGIN}\n5\n{ROOT[:-2]}B=\n",
        f"{ORIGIN}\n5\n{ROOT.rstrip('=')}\n",
        f"{ORIGIN}\n5\né{ROOT[1:]}\n",
        f"a log\n5\n{ROOT}\n",
        f"\n5\n{ROOT}\n",
        f"{ORIGIN}\n5\n{ROOT}",
        f"{ORIGIN}\n5\n{ROOT}\nextension",
    ],
)
def test_a_checkpoint_has_one_spelling(text: str) -> None:
    """Extension lines, other numerals, other base64 and other origins are malformed."""
    with pytest.raises(LogError, match="checkpoint-malformed"):
        Checkpoint.parse(text)


def test_the_largest_size_is_still_a_size() -> None:
    """2^63 - 1 passes."""
    assert Checkpoint.parse(f"{ORIGIN}\n{MAX_SIZE}\n{ROOT}\n").size == MAX_SIZE


@pytest.mark.parametrize(("size", "root"), [(-1, bytes(32)), (MAX_SIZE + 1, bytes(32)), (1, bytes(31))])
def test_an_impossible_checkpoint_is_never_signed(size: int, root: bytes) -> None:
    """It cannot even be made."""
    with pytest.raises(LogError, match="checkpoint-malformed"):
        Checkpoint(ORIGIN, size, root)


@pytest.mark.parametrize("origin", ["", "a b", "a+b", "a\nb", "-a", "ä.example", "a" * 256])
def test_an_origin_that_would_break_a_note_is_refused(origin: str) -> None:
    """Spaces, plus, newlines and the like cannot be in an origin, so none can forge a line."""
    with pytest.raises(LogError, match="bad-origin"):
        check_origin(origin)
    with pytest.raises(LogError, match="bad-origin"):
        Checkpoint(origin, 0, EMPTY_ROOT)


def test_a_log_key_is_ed25519() -> None:
    """No other kind of key signs or verifies checkpoints."""
    other = generate(Algorithm.P256)
    with pytest.raises(LogError, match="bad-log-key"):
        sign(Log.of(1).checkpoint(), key=other)
    with pytest.raises(LogError, match="bad-log-key"):
        VerifierKey.make(ORIGIN, other.public_key)


def test_every_altered_character_of_a_verifier_key_is_refused() -> None:
    """The hash ties name and key together, so a mistyped key is noticed before it is trusted."""
    text = str(vkey())
    VerifierKey.parse(text)
    for position, character in enumerate(text):
        for other in {chr(ord(character) ^ 1 << bit) for bit in range(7)} | {"+", " ", "é"} - {character}:
            with pytest.raises(LogError, match="vkey-malformed"):
                VerifierKey.parse(text[:position] + other + text[position + 1 :])


@pytest.mark.parametrize("text", ["", "a", "a+b", "a+00000000+", "a+00000000+Ag" + "A" * 42 + "=", "a+00000000+AQ=="])
def test_what_is_not_a_verifier_key_is_refused(text: str) -> None:
    """Missing parts, other algorithms and short keys are malformed."""
    with pytest.raises(LogError, match="vkey-malformed"):
        VerifierKey.parse(text)


@settings(max_examples=300)
@given(st.one_of(st.binary(max_size=300), st.text(max_size=300)))
def test_parsers_raise_log_errors_only(data: bytes | str) -> None:
    """Whatever the bytes, a parser answers with a value or a LogError."""
    with pytest.raises(LogError):
        open_note(data, vkey())
    text = data if isinstance(data, str) else data.decode("latin-1")
    with pytest.raises(LogError):
        Checkpoint.parse(text)
    with pytest.raises(LogError):
        VerifierKey.parse(text)


@settings(max_examples=200)
@given(st.text(alphabet="ab\n—+ =AQ01", max_size=80))
def test_a_signed_text_opens_only_as_itself(text: str) -> None:
    """Even a text the log's key did sign opens only if it is exactly a checkpoint."""
    with pytest.raises(LogError):
        open_note(signed(text + "\n"), vkey())
