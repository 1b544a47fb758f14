"""SHA-256 of the SPKI of every key in ``keys-example/``. Written by ``keys-example/regenerate.py``; do not edit."""

EXAMPLE_KEYS: frozenset[str] = frozenset(
    {
        "01cb0b688f2236b3d596d209ee5eee0a58e5b93f6fd2b8408f01deb8f59db865",
        "2bfb4dc5357cfd0a8f0e575b0590545baf298bf05eaa78270d9a7196178d152e",
        "3b3827216a3639db5cb07e407c8e5b16040a2a59c7fdcb0c2e3a3a48e9e3ebc4",
        "4f94127cff6f2cb4f0983b744f1bd1741c04fe47f266851a8b72593460b504b5",
        "58c3e7a0d9e1ccfcf5ff089a8cc43a5a432d88f57aa528d3d9ac98798eefff5a",
        "87579415cfd48af7630628560ad10771e09edaa105dbec945eeeb7517c589a67",
        "c75b60bbc8b80e07e117a3f7204ee16dc788a69a32157613255b93c5679ba43e",
    }
)
