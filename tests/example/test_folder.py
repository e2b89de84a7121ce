"""The folder, and what processes that share it have in common."""

import os
import stat
import subprocess
import sys
import tempfile

import pytest

import example_app
from example_app import folder

CELERY = {"broker_url": "redis://127.0.0.1:1/0", "result_backend": "redis://127.0.0.1:1/1"}

MAKE = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("example_app", sys.argv[1], submodule_search_locations=[sys.argv[2]])
sys.modules["example_app"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
app = module.create_app({"EXAMPLE_FOLDER": sys.argv[3], "EXAMPLE_VISITS": 1000})
print(app.config["SECRET_KEY"], app.config["ASOK_WEBHOOK_SECRETS"]["shop"])
"""


@pytest.fixture
def _own_temporary(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def make(**config):
    app = example_app.create_app({"EXAMPLE_VISITS": 1, **config})
    example_app.close(app)
    return app.config


def test_same_secrets(tmp_path):
    """Processes that start at the same moment agree on the secrets, and one of them makes the database."""
    package = os.path.dirname(example_app.__file__)
    command = [sys.executable, "-c", MAKE, example_app.__file__, package, str(tmp_path / "data")]

    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    said = {process.communicate(timeout=60)[0] for process in processes}

    assert [process.returncode for process in processes] == [0] * 4
    assert len(said) == 1
    assert len(said.pop().split()) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other rights")
def test_secrets_are_private(tmp_path):
    """Nobody else on the computer reads the secrets."""
    make(EXAMPLE_FOLDER=str(tmp_path))

    assert stat.S_IMODE((tmp_path / "secrets.json").stat().st_mode) == 0o600


@pytest.mark.usefixtures("_own_temporary")
def test_on_celery():
    """On Celery the web and the workers agree on all, with nothing named but the broker."""
    pytest.importorskip("celery")
    web = make(ASOK_BACKEND="celery", ASOK_CELERY=CELERY)
    worker = make(ASOK_BACKEND="celery", ASOK_CELERY=CELERY)

    for key in ("EXAMPLE_FOLDER", "SECRET_KEY", "ASOK_WEBHOOK_SECRETS", "MAIL_PORT", "CACHE_REDIS_URL"):
        assert web[key]
        assert web[key] == worker[key]


@pytest.mark.usefixtures("_own_temporary")
def test_what_is_named_counts():
    """What the configuration names is not replaced."""
    pytest.importorskip("celery")
    named = {"SECRET_KEY": "mine", "MAIL_PORT": 2626, "CACHE_REDIS_URL": "redis://127.0.0.1:1/7"}

    config = make(ASOK_BACKEND="celery", ASOK_CELERY=CELERY, **named)

    assert {key: config[key] for key in named} == named


@pytest.mark.usefixtures("_own_temporary")
@pytest.mark.skipif(not hasattr(os, "symlink"), reason="needs links")
def test_folder_of_somebody_else(tmp_path):
    """A link that somebody put in the place of the shared folder is not followed."""
    pytest.importorskip("celery")
    expected = folder.shared()
    os.rmdir(expected)
    os.symlink(tmp_path, expected)

    with pytest.raises(RuntimeError, match="FLASK_EXAMPLE_FOLDER"):
        make(ASOK_BACKEND="celery", ASOK_CELERY=CELERY)
