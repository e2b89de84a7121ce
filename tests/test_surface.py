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
    {"aside", "baton", "current", "errors", "hints", "process", "progress", "validate"},
    {"helper_thread", "logs", "secret_keys"},
    {"options"},
    {"signals", "retries", "context", "serving", "summaries", "settings", "tokens"},
    {"task_log"},
    {"messages", "store"},
    {"callables"},
    {"arguments", "tasks"},
    {"telemetry"},
    {"calls", "waiting"},
    {"attempt", "packing"},
    {"key_probe", "record_writer", "reporting", "triggers"},
    {"backends"},
    {"state"},
    {"owed", "results", "sharing"},
    {"handles", "journal"},
    {"durable"},
    {"recording"},
    {"dispatch"},
    {"periodic", "recipes", "status"},
    {"dashboard"},
    {"cli", "rooms"},
    {"extension"},
    {"__init__"},
    {"testing"},
]
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}

FILES = sorted(PACKAGE.rglob("*.py"))

# What does not hold yet; nothing is added here.
PRIVATE = {"_write_client", "_get_prefix"}


def module_of(path):
    """`("recipes", "cache", "store")` for the file `recipes/cache/store.py`; of an `__init__` its folder."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts


def imports_of(path):
    """Every module of this package that the file imports: at its top, late, or for the type checker alone."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
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


def test_editors_are_offered_the_api():
    """An editor and `dir()` offer the public names and modules, and not what they are made of."""
    assert dir(flask_asok) == sorted([*flask_asok.__all__, "errors", "signals"])


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


def test_no_circle():
    """No file imports another one that, by however many files, imports it."""
    files = {module_of(path): path for path in FILES}
    imports = {
        module: {imported for imported in imports_of(path) if imported in files} for module, path in files.items()
    }

    while leaves := {module for module, needed in imports.items() if not needed}:
        imports = {module: needed - leaves for module, needed in imports.items() if module not in leaves}

    assert imports == {}


@pytest.mark.parametrize(
    "path", [path for path in FILES if len(module_of(path)) > 2], ids=lambda path: "/".join(module_of(path))
)
def test_no_recipe_knows_another(path):
    """A recipe imports what is of its own folder, and of the core; what recipes share is no recipe's."""
    module = module_of(path)

    others = [imported for imported in imports_of(path) if imported[0] == "recipes" and imported[1:2] != module[1:2]]
    assert module[0] != "recipes" or all(imported[1:2] == ("room",) for imported in others)


@pytest.mark.parametrize(
    "path", [path for path in FILES if module_of(path)[0] == "recipes"], ids=lambda path: "/".join(module_of(path))
)
def test_recipes_know_no_backend(path):
    """A recipe knows `background`, never a backend, and reaches the extension through `current_app`."""
    forbidden = {"backends", "extension", "cli", "testing", "holds"}

    assert forbidden.isdisjoint(imported[0] for imported in imports_of(path))


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if module_of(path)[0] not in ("backends", "rooms", "cli")],
    ids=lambda path: "/".join(module_of(path)),
)
def test_core_names_no_engine(path):
    """Only the backends, their choice and their commands know of an engine by its name."""
    assert "celery" not in path.read_text().lower()


def test_the_check_sees_every_import():
    """The test of the arrow looks inside functions too, and at what only a type checker reads."""
    assert ("backends", "celery") in imports_of(PACKAGE / "backends" / "choice.py")
    assert ("dispatch",) in imports_of(PACKAGE / "testing" / "promises" / "jobs.py")


# What stays inside a file


def private_names_of(path):
    """Every private name of another file, or of a dependency, that the file uses."""
    tree = ast.parse(path.read_text())
    own, used = set(), set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                own.add(name)
            case ast.Name(id=name, ctx=ast.Store()):
                own.add(name)
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                own.add(name)
            case ast.Constant(value=str(name)):  # of `__slots__`, say
                own.add(name)
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls") | ast.Call(func=ast.Name(id="super"))):
                pass
            case ast.Attribute(attr=name):
                used.add(name)
            case ast.ImportFrom(names=names):
                used.update(alias.name for alias in names)
    return {name for name in used - own if name.startswith("_") and not name.startswith("__")}


OF_OTHERS = {
    # Documented, in spite of their names.
    "_get_current_object",
    "_getframe",
    "_current_frames",
    "_exit",
    "_make",
    "_replace",
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: "/".join(module_of(path)))
def test_no_private_name_of_another_file(path):
    """A name that begins with an underscore is used where it is made, and in subclasses."""
    assert private_names_of(path) <= OF_OTHERS | PRIVATE


@pytest.mark.parametrize("path", FILES, ids=lambda path: "/".join(module_of(path)))
def test_a_file_is_seen_whole(path):
    """No file has more than 300 lines."""
    assert len(path.read_text().splitlines()) <= 300


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


def test_preload():
    """What the built-in jobs need can be imported before the first visitor comes, whose call then imports nothing."""
    call = (
        "import flask, flask_asok; app = flask.Flask('shop'); app.testing = True; asok = flask_asok.FlaskAsok(app)\n"
        "asok.preload(); before = set(sys.modules)\n"
        "with app.app_context(): asok.send_mail(to='ada@example.com', subject='', body='', sender='us@example.com')\n"
        "with app.app_context(): asok.send_webhook('https://example.com/', {})\n"
        "sys.modules = {name: None for name in set(sys.modules) - before}"
    )

    assert modules_after("import flask_asok; flask_asok.FlaskAsok().preload()") >= {"PIL", "urllib3", "flask_mail"}
    assert not [name for name in modules_after(call) if name.split(".")[0] in ("flask_asok", "urllib3", "flask_mail")]


def test_import_starts_no_thread():
    """The import starts no thread."""
    script = "import flask_asok, threading, sys; sys.exit(threading.active_count() - 1)"

    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == 0


# The seam between a task and its backend


def test_a_task_shows_what_its_holder_may_use(app):
    """An editor and `dir()` offer on a Task what its holder may use, and nothing of what a backend does with it."""
    names = {
        "app", "as_dict", "attempts", "cancel", "duration", "enqueued_at", "error", "exception", "finished_at", "id",
        "progress", "queue",
        "result", "scheduled_at", "started_at", "state",
    }  # fmt: skip
    of_thread = {name for name in dir(threading.Thread) if not name.startswith("_")}

    with app.app_context():
        task = background(int)
        task.join(10)

    told = {name for name in (*vars(Task), *Task.__annotations__) if not name.startswith("_")}
    assert told - of_thread == names
    assert {name for name in dir(task) if not name.startswith("__")} == names | of_thread
    assert all(getattr(task, name) is not None for name in ("claim", "perform", "settle", "abandon"))
