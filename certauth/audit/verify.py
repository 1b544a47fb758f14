"""Verifying a whole log: every stored byte is hashed again and compared with what was signed.

An altered, missing, inserted or moved entry breaks a stored hash or the chain at its index. Whoever recomputes both after the
change still cannot sign, so the root differs from the checkpoint's; older checkpoints, from receipts and witnesses, then tell
between which sizes the past was rewritten. The checks never parse an entry: damage cannot hide behind a parser.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from certauth.audit.chain import DamagedLog, extend_chain, start
from certauth.audit.checkpoint import Checkpoint, VerifierKey, open_note
from certauth.audit.tree import Frontier, extend, leaf_hashes

_BATCH = 1024


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """One row of the log as it is stored: position, exact bytes, leaf hash, chain value after it."""

    index: int
    body: bytes
    leaf: bytes
    chain: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A log that verified: ``checkpoint`` covers every entry; ``chain`` is the value after the last."""

    checkpoint: Checkpoint
    chain: bytes
    older_checkpoints: int


def verify_log(
    entries: Iterable[StoredEntry], note: str | bytes, vkey: VerifierKey, *, older: Sequence[str | bytes] = ()
) -> Report:
    """Establish that ``entries``, in order, are exactly the log that ``note`` signs and that every ``older`` note signed.

    1. all notes are checkpoints by the log's key (codes of ``open_note``), none of ``older`` larger than ``note``
       (``log-rolled-back``): the log was once longer;
    2. every entry stands at its index (``log-gap``), has its leaf hash (``log-entry-altered``) and continues the chain
       (``log-chain-broken``);
    3. at each checkpoint's size the tree has the signed root (``log-root-mismatch``), also where an earlier checkpoint of the
       same size agreed (``log-forked``: the key signed two pasts);
    4. there are as many entries as signed, no fewer (``log-truncated``) and no more (``log-unsigned-entries``).

    Raises ``LogError``; what is about entries as ``DamagedLog``, which names the first bad index. A root mismatch names the
    first entry after the last checkpoint that still agreed.
    """
    # 1
    newest = open_note(note, vkey)
    checkpoints = sorted([newest, *(open_note(text, vkey) for text in older)], key=lambda checkpoint: checkpoint.size)
    if checkpoints[-1].size > newest.size:
        raise DamagedLog(
            "log-rolled-back",
            f"the log had {checkpoints[-1].size} entries once and now claims {newest.size}",
            index=newest.size,
        )
    stream = iter(entries)
    frontier, chain = Frontier(), start(vkey.name)
    for checkpoint in checkpoints:
        agreed = frontier.size
        # 2
        while frontier.size < checkpoint.size:
            batch = list(islice(stream, min(_BATCH, checkpoint.size - frontier.size)))
            if not batch:
                raise DamagedLog(
                    "log-truncated", f"{checkpoint.size} entries were signed, {frontier.size} are here", index=frontier.size
                )
            frontier, chain = _check_batch(frontier, chain, batch)
        # 3
        if frontier.root() != checkpoint.root:
            raise _disagreement(agreed, checkpoint.size)
    # 4
    if next(stream, None) is not None:
        raise DamagedLog("log-unsigned-entries", f"entry {newest.size} and later ones were never signed", index=newest.size)
    return Report(checkpoint=newest, chain=chain, older_checkpoints=len(older))


def _disagreement(agreed: int, size: int) -> DamagedLog:
    if agreed == size:
        return DamagedLog("log-forked", f"the log's key signed a tree of {size} entries that is not this one", index=size)
    return DamagedLog(
        "log-root-mismatch", f"entries {agreed} to {size - 1} are not those that were signed: the roots differ", index=agreed
    )


def _check_batch(frontier: Frontier, chain: bytes, batch: list[StoredEntry]) -> tuple[Frontier, bytes]:
    """Compare a batch at once; only if something differs, look for the first entry that does."""
    first = frontier.size
    leaves = leaf_hashes(entry.body for entry in batch)
    chains = extend_chain(chain, leaves)
    if (
        leaves != [entry.leaf for entry in batch]
        or chains != [entry.chain for entry in batch]
        or [entry.index for entry in batch] != list(range(first, first + len(batch)))
    ):
        at = min(
            at
            for at, (entry, leaf, value) in enumerate(zip(batch, leaves, chains, strict=True))
            if (entry.index, entry.leaf, entry.chain) != (first + at, leaf, value)
        )
        raise _damage(batch[at], first + at, leaves[at])
    return extend(frontier, leaves).frontier, chains[-1]


def _damage(entry: StoredEntry, index: int, leaf: bytes) -> DamagedLog:
    if entry.index != index:
        return DamagedLog("log-gap", f"where entry {index} should be, there is entry {entry.index}", index=index)
    if entry.leaf != leaf:
        return DamagedLog("log-entry-altered", f"the bytes of entry {index} are not those that were written", index=index)
    return DamagedLog("log-chain-broken", f"entry {index} does not continue the chain before it", index=index)
