"""The checks people have, recognised by their bytes.

Almost every check in almost every token is one that our own writer produced, in a form in which only symbol numbers and dates
vary. A regular expression per form tells which it is several times faster than a reader that descends into every message.
The expressions are composed here the way messages nest, lengths included, so they match canonical bytes and nothing else;
what they do not match is read by :mod:`~certauth.tokens.blocks` the general way, with the same result.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from certauth.tokens.conditions import BodyDigest, Condition, Operations, Paths, Peer, Projects, Services, Window
from certauth.tokens.datalog import DEFAULT_SYMBOLS, OFFSET, Binary, KeyRef, Scope
from certauth.tokens.wire import unsigned, varint

Names = Mapping[int, str]
Keys = Sequence[KeyRef]
Groups = tuple[bytes, ...]
Matcher = Callable[[bytes], Groups | None]
Reader = Callable[[Groups, Names, Keys], Condition | None]

# A symbol number takes two bytes unless it is one of the default ones.
_NUMBERS = {unsigned(number): number for number in (*range(len(DEFAULT_SYMBOLS)), *range(OFFSET, OFFSET + 512))}


class _Part(NamedTuple):
    """A stretch of bytes: what it matches, and how long it is."""

    pattern: bytes
    size: int


def _literal(data: bytes) -> _Part:
    return _Part(re.escape(data), len(data))


def _message(tag: int, *parts: _Part) -> _Part:
    size = sum(part.size for part in parts)
    if size > 0x7F:
        raise ValueError("a message too long for a length of one byte")
    return _Part(re.escape(bytes((tag, size))) + b"".join(part.pattern for part in parts), size + 2)


_OWN = _Part(rb"([\x80-\xff][\x08-\x7f])", 2)
_DEFAULT = _Part(rb"([\x00-\x1b])", 1)
_DATE = _Part(rb"([\x80-\xff]{4}[\x01-\x7f])", 5)


def _string(number: _Part) -> _Part:
    return _Part(rb"\x18" + number.pattern, number.size + 1)


_VARIABLE = _Part(rb"\x08" + _OWN.pattern, 3)
_MOMENT = _Part(rb"\x20" + _DATE.pattern, 6)
_DEPTH = _Part(rb"\x10([\x02-\x04])", 2)


def _predicate(name: str | None, *terms: _Part) -> _Part:
    number = _OWN if name is None else _literal(bytes((DEFAULT_SYMBOLS.index(name),)))
    return _message(0x12, _Part(rb"\x08" + number.pattern, number.size + 1), *(_message(0x12, term) for term in terms))


def _compared(left: _Part, right: _Part, operator: Binary) -> _Part:
    step = _message(0x0A, _literal(bytes((0x1A, 2, 8, operator.value))))
    return _message(0x1A, _message(0x0A, _message(0x0A, left)), _message(0x0A, _message(0x0A, right)), step)


def _query(*parts: _Part) -> _Part:
    return _message(0x0A, _literal(bytes((0x0A, 2, 8, DEFAULT_SYMBOLS.index("query")))), *parts)


_UNTIL = _compared(_VARIABLE, _MOMENT, Binary.LESS_THAN)
_FROM = _compared(_VARIABLE, _MOMENT, Binary.GREATER_OR_EQUAL)
_BELOW = _compared(_VARIABLE, _string(_OWN), Binary.PREFIX)
_HELD = _query(_predicate(None, _string(_OWN)))
_TRUSTING = (_message(0x22, _literal(bytes((0x08, Scope.AUTHORITY.value)))), _message(0x22, _literal(b"\x10\x00")))
_NAMED = _query(_predicate(None, _VARIABLE), _predicate(None, _VARIABLE), *_TRUSTING)
_CHAINED = _query(_predicate(None, _VARIABLE), _predicate(None, _VARIABLE), _predicate(None, _DEPTH, _VARIABLE), *_TRUSTING)


_CHAIN_NAMES = ["peer_cert", "x", "holder", "delegate", "y"]


def recognise(check: bytes, names: Names, keys: Keys) -> Condition | None:
    """The condition whose check is written as ``check``, or ``None`` if a general reader has to look."""
    # Each form has a length of its own, and the name of its first predicate at a fixed place.
    size = len(check)
    if not 9 < size <= _LONGEST:
        return None
    if (dated := _DATED.get((size, check[9]))) is not None:
        read, reader = dated
        return None if (groups := read(check)) is None else reader(groups, names, keys)
    form = _form_of(check)
    return None if form is None else form[0](form[1], names, keys)


@lru_cache(maxsize=4096)  # symbol numbers repeat from token to token, and with them the bytes of all checks without a date
def _form_of(check: bytes) -> tuple[Reader, Groups] | None:
    form = _FORMS.get((len(check), check[9])) or _FORMS.get((len(check), None))
    if form is None or (groups := form[0](check)) is None:
        return None
    return form[1], groups


def _name(number: bytes, names: Names) -> str | None:
    return names.get(_NUMBERS.get(number, -1))


def _end(found: Groups, names: Names, _: Keys) -> Condition | None:
    variable, again, end = found
    return Window(None, varint(end, 0)[0]) if variable == again and _name(variable, names) == "t" else None


def _window(found: Groups, names: Names, _: Keys) -> Condition | None:
    variable, second, start, third, end = found
    if not variable == second == third or _name(variable, names) != "t":
        return None
    return Window(varint(start, 0)[0], varint(end, 0)[0])


def _service(found: Groups, names: Names, _: Keys) -> Condition | None:
    return None if (name := _name(found[0], names)) is None else Services((name,))


def _operation(found: Groups, names: Names, _: Keys) -> Condition | None:
    return None if (name := _name(found[0], names)) is None else Operations((name,))


def _path(found: Groups, names: Names, _: Keys) -> Condition | None:
    path = _name(found[0], names)
    # An exact path with a trailing slash is not what we mean by one.
    return None if path is None or path.endswith("/") else Paths((path,))


def _subtree(found: Groups, names: Names, _: Keys) -> Condition | None:
    variable, again, number = found
    path = _name(number, names)
    if variable != again or _name(variable, names) != "p" or path is None or not path.endswith("/"):
        return None
    return Paths((path,))


def _held(found: Groups, names: Names, _: Keys) -> Condition | None:
    value = _name(found[1], names)
    if value is None:
        return None
    match _name(found[0], names):
        case "peer_cert":
            return Peer(value)
        case "body_sha256":
            return BodyDigest(value)
        case "for_project":
            return Projects((value,))
        case _:
            return None


def _delegable(found: Groups, names: Names, keys: Keys) -> Condition | None:
    certificate, number, second, variable, delegate, again = found
    fingerprint = _name(number, names)
    if certificate != second or variable != again or _name(variable, names) != "x" or fingerprint is None or not keys:
        return None
    if _name(certificate, names) != "peer_cert" or _name(delegate, names) != "delegate":
        return None
    return Peer(fingerprint, keys[0])


def _handed_on(found: Groups, names: Names, keys: Keys) -> Condition | None:
    certificate, number, second, variable, holder, again, delegate, depth, next_one = found
    fingerprint = _name(number, names)
    if certificate != second or variable != again or fingerprint is None or not keys:
        return None
    if [_name(each, names) for each in (certificate, variable, holder, delegate, next_one)] != _CHAIN_NAMES:
        return None
    return Peer(fingerprint, keys[0], depth[0])


def _form(*parts: _Part) -> tuple[int, Matcher]:
    match = re.compile(b"".join(part.pattern for part in parts), re.DOTALL).fullmatch

    def groups(check: bytes) -> Groups | None:
        found = match(check)
        return None if found is None else found.groups()

    return sum(part.size for part in parts), groups


def _forms() -> dict[tuple[int, int | None], tuple[Matcher, Reader]]:
    """The form of each length and first predicate; no predicate stands for one that is not among the default symbols."""
    own = {_form(_HELD): _held, _form(_HELD, _NAMED): _delegable, _form(_HELD, _CHAINED): _handed_on}
    forms: dict[tuple[int, int | None], tuple[Matcher, Reader]]
    forms = {(size, None): (match, reader) for (size, match), reader in own.items()}
    for name, reader, *variants in (
        ("time", _end, (_VARIABLE, _UNTIL)),
        ("time", _window, (_VARIABLE, _FROM, _UNTIL)),
        ("service", _service, (_string(_OWN),), (_string(_DEFAULT),)),
        ("operation", _operation, (_string(_OWN),), (_string(_DEFAULT),)),
        ("path", _path, (_string(_OWN),), (_string(_DEFAULT),)),
        ("path", _subtree, (_VARIABLE, _BELOW)),
    ):
        for term, *limits in variants:
            size, match = _form(_query(_predicate(name, term), *limits))
            forms[size, DEFAULT_SYMBOLS.index(name)] = (match, reader)
    return forms


_FORMS = _forms()
_DATED = {form: found for form, found in _FORMS.items() if form[1] == DEFAULT_SYMBOLS.index("time")}
_LONGEST = max(size for size, _ in _FORMS)
