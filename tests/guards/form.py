"""What an entry of the list of guards is."""

from __future__ import annotations

Edit = tuple[str, str, str]
"""File, exact text that is there once, text in its place."""
Guard = tuple[str, tuple[Edit, ...], tuple[str, ...]]
"""Its name, the edits that take it out, and the test files of which one test must notice."""
