"""How Sphinx builds the documentation: `nox -s docs`."""

from importlib.metadata import version as version_of

project = "Flask-Asok"
author = "The Flask-Asok authors"
copyright = author  # noqa: A001 - Sphinx's name
release = version_of("flask-asok")
version = ".".join(release.split(".")[:2])

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]
# No intersphinx: a build that needs the network fails for reasons that are not ours.

# The docstrings are Markdown in spirit: `name` is code.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"Flask-Asok {version}"
html_copy_source = False


def show_drawing(app, what, name, obj, options, lines):
    """Keep the tree of errors as it is drawn."""
    if name == "flask_asok.errors":
        lines[:] = [lines[0], "", "::", "", *(f"    {line}" for line in lines[2:])]


def setup(app):
    app.connect("autodoc-process-docstring", show_drawing)
