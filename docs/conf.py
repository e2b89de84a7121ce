"""How Sphinx builds the documentation: `nox -s docs`."""

from importlib.metadata import version as version_of

from sphinx.ext.napoleon import Config, GoogleDocstring
from sphinx.util import import_object
from sphinx.util.docstrings import prepare_docstring
from sphinx.util.docutils import SphinxDirective

from flask_asok.rooms import ROOMS

project = "Flask-Asok"
author = "The Flask-Asok authors"
copyright = author
release = version_of("flask-asok")
version = ".".join(release.split(".")[:2])

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinxext.opengraph",
]
exclude_patterns = ["_build"]
# No intersphinx: a build that needs the network fails for reasons that are not ours.

# The docstrings are Markdown in spirit: `name` is code.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
# "threads" is what to type; curly quotes would not do.
smartquotes = False
python_use_unqualified_type_names = True

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"Flask-Asok {version}"
html_logo = "pictures/logo.svg"
html_favicon = "pictures/logo.svg"
html_static_path = ["static"]
html_css_files = ["docs.css"]
html_extra_path = ["pictures/card.png"]
# The colours of the example application, so that both look like one house.
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0f766e", "color-brand-content": "#0f766e"},
    "dark_css_variables": {"color-brand-primary": "#4fc3b5", "color-brand-content": "#4fc3b5"},
    # For the link "Edit this page".
    "source_repository": "https://github.com/flask-asok/flask-asok/",
    "source_branch": "main",
    "source_directory": "docs/",
}
html_copy_source = False

# What the copy button leaves out; of a block with prompts it takes the commands, and not what they print.
copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True

# What a chat or a feed shows of a link to a page.
ogp_site_url = "https://flask-asok.readthedocs.io/en/latest/"
ogp_image = f"{ogp_site_url}card.png"
ogp_image_alt = "Flask answers the page, Flask-Asok does the slow part."
ogp_social_cards = {"enable": False}


def read_docstring(app, what, name, obj, options, lines):
    """Read docstrings as we write them."""
    if name == "flask_asok.errors":
        # The tree of errors is a drawing.
        lines[:] = [lines[0], "", "::", "", *(f"    {line}" for line in lines[2:])]
    elif what in ("class", "exception", "function", "method"):
        # Not of attributes, where it takes all before a colon for a type.
        lines[:] = GoogleDocstring(lines, Config(), app, what, name, obj, options).lines()


class Docstring(SphinxDirective):
    """`.. autodocstring:: name` quotes a docstring and leaves the signature to the page."""

    required_arguments = 1

    def run(self):
        name = self.arguments[0]
        lines = prepare_docstring(import_object(name).__doc__)
        return self.parse_text_to_nodes("\n".join(lines))


class Settings(SphinxDirective):
    """`.. settings::` lists the configuration keys, a table for each room that declares some."""

    def run(self):
        lines = []
        for room, settings in ROOMS.items():
            lines += [f"## {room}", "", "| key | default | meaning |", "|---|---|---|"]
            lines += [f"| `{one.name}` | `{shown(one.default)}` | {one.meaning} |" for one in settings]
            lines.append("")
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


def shown(default):
    """Write a default as Python would read it, in groups of three digits."""
    return f"{default:,}".replace(",", "_") if isinstance(default, int) and default >= 10_000 else repr(default)


def setup(app):
    app.add_directive("settings", Settings)
    app.add_directive("autodocstring", Docstring)
    app.connect("autodoc-process-docstring", read_docstring)
