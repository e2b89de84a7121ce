"""What the package shows, what it imports, and in which direction."""

import ast
import subprocess
import sys
import threading
import types
from pathlib import Path

import pytest

import flask_asok
from flask_asok import Task, background

PACKAGE = Path(flask_asok.__file__).parent

# Each may import what stands in a line above its own, and what is of its own folder.
ORDER = [
    {"baton", "errors", "hints", "process", "progress", "validate"},
    {"helper_thread", "logs"},
    {"options"},
    {"signals", "retries", "context", "summaries", "settings", "tokens"},
    {"store"},
    {"callables"},
    {"arguments", "tasks"},
    {"calls", "waiting"},
    {"attempt"},
    {"backends", "reporting"},
    {"state", "triggers"},
    {"dispatch", "finding"},
    {"recipes", "status"},
    {"cli"},
    {"extension"},
    {"__init__"},
    {"testing"},
]
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}

BACKENDS = [
    {"names", "causes", "intake"},
    {"codec", "redis_server"},
    {"message", "records"},
    {"base", "scheduler", "engine", "settings"},
    {"pool"},
    {"shutdown"},
    {"immediate", "threads", "celery_task"},
    {"celery_worker"},
    {"celery"},
]
BACKEND_RANK = {name: rank for rank, names in enumerate(BACKENDS) for name in names}

FILES = sorted(PACKAGE.rglob("*.py"))


def module_of(path):
    """`("recipes", "cache", "store")` for the file `recipes/cache/store.py`; of an `__init__` its folder."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts


def imports_of(path):
    """Every module of this package that the file imports, at its top or late, but for the type checker alone."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    pending, found = list(ast.parse(path.read_text()).body), []
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            pending.extend(node.orelse)
            continue
        pending.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.ImportFrom) and node.level:
            base = parts[: len(parts) - node.level]
            if node.module:
                found.append((*base, *node.module.split(".")))
            else:
                found.extend((*base, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "flask_asok":
            found.append(tuple(node.module.split(".")[1:]) or ("__init__",))
        elif isinstance(node, ast.Import):
            found.extend(tuple(name.name.split(".")[1:]) for name in node.names if name.name.startswith("flask_asok"))
    return found


# The public names


def test_all_is_exact():
    """`__all__` is sorted, and holds each public name of the package, and no other."""
    public = {
        name
        for name, value in vars(flask_asok).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }

    assert flask_asok.__all__ == sorted(flask_asok.__all__)
    assert set(flask_asok.__all__) == public


def test_documented_names():
    """The names of the documentation's first page are there."""
    from flask_asok import Cache, FlaskAsok, Mail, background, resize_image, send_webhook, warm_cache

    assert all((Cache, FlaskAsok, Mail, background, resize_image, send_webhook, warm_cache))


def test_no_module_hides_a_function():
    """No module bears the name of something public: `flask_asok.background` is the function."""
    modules = {module_of(path)[0] for path in FILES}

    assert modules.isdisjoint(flask_asok.__all__)


def test_typed():
    """The package tells type checkers that it is typed."""
    assert (PACKAGE / "py.typed").exists()


def test_errors_and_signals_of_recipes():
    """Errors and signals of the recipes can be imported from `flask_asok.errors` and `flask_asok.signals` too."""
    from flask_asok import errors, signals
    from flask_asok.recipes import mail

    assert errors.MailRefused is flask_asok.MailRefused
    assert signals.mail_refused is mail.mail_refused
    for module in (errors, signals):
        with pytest.raises(AttributeError, match="no attribute 'MailLost'"):
            module.MailLost


# The arrow


@pytest.mark.parametrize("path", FILES, ids=lambda path: "/".join(module_of(path)))
def test_imports_flow_one_way(path):
    """A module imports only what stands before it."""
    module = module_of(path)

    for imported in imports_of(path):
        if imported[0] != module[0]:
            assert RANK[imported[0]] < RANK[module[0]], f"{module} imports {imported}"
        elif module[0] == "backends":
            assert BACKEND_RANK[imported[1]] < BACKEND_RANK[module[1]], f"{module} imports {imported}"


@pytest.mark.parametrize(
    "path", [path for path in FILES if module_of(path)[0] == "recipes"], ids=lambda path: "/".join(module_of(path))
)
def test_recipes_know_no_backend(path):
    """A recipe knows `background`, never a backend, and reaches the extension through `current_app`."""
    forbidden = {"backends", "extension", "cli", "testing", "holds"}

    assert forbidden.isdisjoint(imported[0] for imported in imports_of(path))


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if module_of(path)[0] not in ("backends", "extension", "cli")],
    ids=lambda path: "/".join(module_of(path)),
)
def test_core_names_no_engine(path):
    """Only the backends, their choice and their commands know of an engine by its name."""
    assert "celery" not in path.read_text().lower()


def test_the_check_sees_late_imports():
    """The test of the arrow looks inside functions too, and not at what only a type checker reads."""
    assert ("triggers",) in imports_of(PACKAGE / "dispatch.py")
    assert ("backends", "celery") in imports_of(PACKAGE / "extension.py")
    assert all(imported[0] != "recipes" for imported in imports_of(PACKAGE / "errors.py"))


# What an import costs


def modules_after(script):
    script = f"import sys\n{script}\nprint(*sorted(sys.modules), sep='\\n')"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    return set(ended.stdout.split())


@pytest.mark.parametrize(
    "script",
    [
        "import flask_asok",
        "import flask, flask_asok; flask_asok.FlaskAsok(flask.Flask('shop'))",
        "import flask, flask_asok; app = flask.Flask('shop'); app.config['ASOK_BACKEND'] = 'immediate'\n"
        "flask_asok.FlaskAsok(app)\nwith app.app_context(): flask_asok.background(int).result(10)",
    ],
    ids=["import", "init_app", "background"],
)
def test_light_import(script):
    """Neither the import nor setting an app up nor a task of one's own loads a recipe's heavy library."""
    heavy = {"PIL", "urllib3", "flask_mail", "smtplib", "redis", "celery", "kombu", "sqlalchemy", "pytest"}

    assert heavy.isdisjoint(modules_after(script))


def test_import_starts_no_thread():
    """The import starts no thread."""
    script = "import flask_asok, threading, sys; sys.exit(threading.active_count() - 1)"

    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == 0


# The seam between a task and its backend


def test_a_task_shows_what_its_holder_may_use(app):
    """An editor and `dir()` offer on a Task what its holder may use, and nothing of what a backend does with it."""
    names = {
        "app", "as_dict", "attempts", "cancel", "enqueued_at", "exception", "finished_at", "id", "progress", "queue",
        "result", "started_at", "state",
    }  # fmt: skip
    of_thread = {name for name in dir(threading.Thread) if not name.startswith("_")}

    with app.app_context():
        task = background(int)
        task.join(10)

    told = {name for name in (*vars(Task), *Task.__annotations__) if not name.startswith("_")}
    assert told - of_thread == names
    assert {name for name in dir(task) if not name.startswith("__")} == names | of_thread
    assert all(getattr(task, name) is not None for name in ("claim", "perform", "settle", "abandon"))
