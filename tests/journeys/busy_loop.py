"""Nothing but work, until killed: the neighbours of ``test_busy.py``."""

while True:
    pass
