"""A further recipe is its folder and one line: here is one, added to a copy of the package by that line."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import flask_asok

TIMEOUT = 60
LINE = '    "faxes",\n'

APP = """
from flask import Flask
from flask_asok import FlaskAsok

app = Flask(__name__)
asok = FlaskAsok(app)
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the package, with one folder and one line more."""
    tree = tmp_path_factory.mktemp("tree")
    package = Path(flask_asok.__file__).parent
    shutil.copytree(package, tree / "flask_asok", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(Path(__file__).parent / "faxes", tree / "flask_asok" / "recipes" / "faxes")
    (tree / "shop.py").write_text(APP)
    registry = tree / "flask_asok" / "recipes" / "__init__.py"
    before, last, after = registry.read_text().partition('    "mail",\n')
    registry.write_text(before + last + LINE + after)
    return tree


@pytest.fixture
def run(tree):
    """Run Python with the copy in place of the package, and return what it prints."""

    def run(*arguments):
        # What the copy does counts for no coverage of the package.
        env = {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE_", "PYTEST_"))}
        env["PYTHONPATH"] = str(tree)
        done = subprocess.run(
            [sys.executable, *arguments], cwd=tree, env=env, capture_output=True, text=True, timeout=TIMEOUT
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_setting(run):
    """Its setting has its default, is checked, and is suggested for a misspelt one."""
    said = run(
        "-c",
        "from flask import Flask\n"
        "from flask_asok import FlaskAsok\n"
        "for config in ({'ASOK_FAX_TIMEOUT': 'soon'}, {'ASOK_FAX_TIMEOUTS': 5}, {}):\n"
        "    app = Flask('shop')\n"
        "    app.config.update(config)\n"
        "    try:\n"
        "        FlaskAsok(app)\n"
        "        print(app.config['ASOK_FAX_TIMEOUT'])\n"
        "    except (TypeError, ValueError) as error:\n"
        "        print(error)\n",
    ).splitlines()

    assert "ASOK_FAX_TIMEOUT must not be of type str" in said[0]
    assert "The nearest one is ASOK_FAX_TIMEOUT." in said[1]
    assert said[2] == "30.0"


def test_listed(run):
    """Its setting and its queue are in `flask asok status`, and the setting in the table of the documentation."""
    status = json.loads(run("-m", "flask", "--app", "shop", "asok", "status", "--json"))
    (row,) = json.loads(
        run(
            "-c",
            "import json\n"
            "from flask_asok.rooms import ROOMS\n"
            "print(json.dumps([[one.name, one.meaning] for one in ROOMS['Faxes']]))",
        )
    )

    assert status["config"]["ASOK_FAX_TIMEOUT"] == 30
    assert status["queues"]["faxes"] == 1
    assert row == ["ASOK_FAX_TIMEOUT", "Seconds that a fax machine has to answer."]


def test_task(run):
    """Its job runs in the background, on its queue, and its check raises at the call."""
    said = run(
        "-c",
        "from shop import app\n"
        "from flask_asok import background\n"
        "from flask_asok.recipes.faxes import send_fax\n"
        "with app.app_context():\n"
        "    task = background(send_fax, '123', 'Hello')\n"
        "    print(task.queue, task.result(timeout=10), sep='; ')\n"
        "    try:\n"
        "        background(send_fax, 'Ada', 'Hello')\n"
        "    except ValueError as error:\n"
        "        print(error)\n",
    )

    assert said == "faxes; 123: Hello (30 s)\n'Ada' is not a number of a fax.\n"


def test_error_and_signal(run):
    """Its error and its signal can be imported from `flask_asok.errors` and `flask_asok.signals`, and work."""
    said = run(
        "-c",
        "from shop import app\n"
        "from flask_asok import background\n"
        "from flask_asok.errors import AsokError, FaxRefused\n"
        "from flask_asok.recipes.faxes import send_fax\n"
        "from flask_asok.signals import fax_refused\n"
        "refused = []\n"
        "@fax_refused.connect_via(app)\n"
        "def note(app, number):\n"
        "    refused.append(number)\n"
        "with app.app_context():\n"
        "    error = background(send_fax, '404', 'Hello').exception(timeout=10)\n"
        "print(type(error) is FaxRefused, issubclass(FaxRefused, AsokError), refused)\n",
    )

    assert said == "True True ['404']\n"


def test_command(run):
    """Its command is among those of `flask asok`, and works."""
    listed = run("-m", "flask", "--app", "shop", "asok", "--help")
    said = run("-m", "flask", "--app", "shop", "asok", "send-test-fax", "123")

    assert "send-test-fax" in listed
    assert said == "123: Test (30 s)\n"


def test_late_import(run, tree):
    """What it imports late is imported with the first fax, and in tests before any test runs."""
    (tree / "test_late.py").write_text(
        "import sys\n\n\ndef test_late():\n    assert 'flask_asok.recipes.faxes.machine' in sys.modules\n"
    )

    early = run("-c", "import sys, shop; print('flask_asok.recipes.faxes.machine' in sys.modules)")
    said = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_late.py")

    assert early == "False\n"
    assert "1 passed" in said
