"""The audit log: records, the tree over them, signed checkpoints, receipts, and how all of it is verified. Pure functions.

record      an event -> the exact bytes of an entry
tree        entries -> root, inclusion and consistency proofs (RFC 9162); tiles: how the tree is stored
chain       the linear chain beside it
checkpoint  origin, size and root, signed (C2SP)
receipt     entry + proof + checkpoint: verifiable offline
verify      a whole log against its checkpoints
decisions   an enforcement point's local, chained file
"""
