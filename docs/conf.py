"""Settings of the documentation build (`make docs`)."""

import importlib.metadata
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "dereason"
author = "the dereason authors"
copyright = author
release = importlib.metadata.version("dereason")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "settings_table"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"dereason {release}"
html_static_path = ["_static"]
html_copy_source = False

# Headings can be linked to; a link to one that is not there is a warning, and warnings are errors.
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "description"
# Names of other projects are not resolved (the build works offline); our own must be.
nitpick_ignore_regex = [("py:.*", r"(?!dereason\.).*")]
