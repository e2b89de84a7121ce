"""One word for one thing: the words that `docs/glossary.md` has given up stay out of the code and the documentation."""

import io
import re
import tokenize
from pathlib import Path

import pytest

import flask_asok

PACKAGE = Path(flask_asok.__file__).parent
ROOT = Path(__file__).parent.parent
GLOSSARY = ROOT / "docs" / "glossary.md"

FILES = sorted(PACKAGE.rglob("*.py"))
PAGES = sorted(page for page in (ROOT / "docs").glob("*.md") if page.name not in {"glossary.md", "changelog.md"})
PAGES += [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]

ALLOWED = (
    # Names that the release before has sent to workers, or given to authors of a backend.
    ("messages/names.py", "Letter"),
    ("backends/base.py", "lane"),
    # The class.
    ("", "Picture"),
    # Texts that applications may look for.
    ("messages/serializer.py", "travel"),
    ("recipes/images/proof.py", "picture"),
    ("recipes/mail/batch.py", "mails"),
    ("testing/fixture.py", "held until"),
    ("testing/fixture.py", "No such"),
    # Words of others: Pillow's, and Python's text codecs.
    ("recipes/mail/domains.py", "codec"),
    ("recipes/webhooks", "codec"),
)

# With `backticks`: part of a name in the code. Without: a word or a phrase in comments, texts and pages.
ROW = re.compile(r"^\| (?P<old>.+?) \| (?P<use>.+?) \|$", re.MULTILINE)


def old_words():
    """Return the names and the phrases of the glossary's last table, each with what is used instead."""
    table = GLOSSARY.read_text().partition("## Not used any more")[2]
    names, phrases = {}, {}
    for row in list(ROW.finditer(table))[1:]:
        for word in row["old"].split(", "):
            if word.startswith("`"):
                names[word.strip("`")] = row["use"]
            else:
                phrases[word] = row["use"]
    return names, phrases


NAMES, PHRASES = old_words()
PARTS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
PHRASE = re.compile(rf"(?<![\w-])({'|'.join(map(re.escape, PHRASES))})(?![\w-])", re.IGNORECASE)


def found_in_name(name):
    """Return what is old in a name: `Lane` in ThreadLane, `lane` in `own_lane`, and the name itself."""
    return {part for part in {name, *PARTS.findall(name)} if part in NAMES or part.lower() in NAMES}


def found_in_text(text):
    return {match[0] for match in PHRASE.finditer(text)}


def found_in_code(text):
    """Yield each old word of a Python file with its line: in names, comments and strings."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        line, is_name = token.start[0], token.type == tokenize.NAME
        if is_name or token.type == tokenize.COMMENT or "STRING" in tokenize.tok_name[token.type]:
            for word in found_in_name(token.string) if is_name else found_in_text(token.string):
                yield line, word


def prose_of(page):
    """Return the lines of a page outside of its blocks of code, without `names`, addresses, anchors and tags."""
    text = re.sub(r"^```.*?^```", lambda block: "\n" * block[0].count("\n"), page, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"``[^`]+``|`[^`\n]+`|\]\([^)]*\)|</?[a-z][^>\n]*>", "", text).splitlines()


def is_allowed(file, word):
    return any(file.startswith(start) and word == allowed for start, allowed in ALLOWED)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_code(path):
    """No name, comment or text of the package uses a word that was given up."""
    file = path.relative_to(PACKAGE).as_posix()

    found = [(line, word) for line, word in found_in_code(path.read_text()) if not is_allowed(file, word)]

    assert found == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages(page):
    """No page of the documentation does either, outside of its code."""
    found = [(line, words) for line, text in enumerate(prose_of(page.read_text()), 1) if (words := found_in_text(text))]

    assert found == []


def test_the_words_are_found():
    """The test sees an old word as part of a name, in a comment, in a docstring and in a text."""
    code = 'class ThreadLane:\n    """Whoever asks."""\n    # It has travelled.\n    text = f"Lanes of {self}"\n'

    assert {line for line, _ in found_in_code(code)} == {1, 2, 3, 4}
    assert {"lane", "Seal"} <= set(NAMES)
    assert {"lane", "sealed", "no good"} <= set(PHRASES)


def test_allowed_words_are_there():
    """An exception whose word is gone is gone too."""
    for start, word in ALLOWED:
        texts = [path.read_text() for path in FILES if path.relative_to(PACKAGE).as_posix().startswith(start)]

        assert any(word in text for text in texts), (start, word)
