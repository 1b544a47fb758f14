"""Sphinx configuration. Warnings are errors (``make docs``)."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent))

import generate  # noqa: E402  (found through the path set above)

project = "certauth"
author = "the certauth contributors"
copyright = "2026, the certauth contributors"  # noqa: A001  (the name Sphinx reads)
extensions = ["myst_parser", "sphinx_click"]
myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "certauth"
smartquotes = False  # they would turn --read into another word in commands people copy
html_static_path: list[str] = []
exclude_patterns = ["_build"]
nitpicky = True
nitpick_ignore_regex = [(r"py:.*", r".*")]

# The reference is made from the code each time, so that it cannot lag behind it.
generate.write_all(HERE / "reference" / "generated")
