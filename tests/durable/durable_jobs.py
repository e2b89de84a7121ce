"""Functions that durable tasks of the tests run, also in processes of their own."""

import contextvars
import os
import sqlite3
import time

from flask import current_app, g, request, session, url_for

from flask_asok import current_task, task


def note(text):
    """Write a row where the test looks."""
    with sqlite3.connect(current_app.config["ROWS"], timeout=30) as rows:
        rows.execute("CREATE TABLE IF NOT EXISTS ran (text, pid, at)")
        rows.execute("INSERT INTO ran VALUES (?, ?, ?)", (str(text), os.getpid(), time.time()))
    rows.close()


def noted(path):
    """Return what was written, in order."""
    rows = sqlite3.connect(path, timeout=30)
    try:
        return [text for (text,) in rows.execute("SELECT text FROM ran ORDER BY rowid")]
    except sqlite3.OperationalError:
        return []
    finally:
        rows.close()


def wait_for(path, seconds=60):
    """Note that it runs, and wait until the file at `path` is there."""
    note("waits")
    for _ in range(int(seconds * 100)):
        if os.path.exists(path):
            break
        time.sleep(0.01)
    note("waited")


@task(at_most_once=True)
def wait_once(path):
    wait_for(path)


def die():
    """End the process as the system does that has no memory left."""
    note("dies")
    os.kill(os.getpid(), 9)


def fail_once(text):
    note(f"attempt {current_task().attempts}")
    if current_task().attempts == 1:
        raise ConnectionError(text)


def change(items, g_name="user"):
    """Change what it was given, and fail the first time."""
    note([*items, g.get(g_name)])
    items.append("changed")
    setattr(g, g_name, "changed")
    if current_task().attempts == 1:
        raise ConnectionError


def add(a, b):
    return a + b


def fail(text):
    raise ConnectionError(text)


def fail_whatever_it_gets(value):
    raise ConnectionError


def plain_copy():
    """Return `add_nothing` anew, to be decorated, under the name by which it is found."""

    def add_nothing():
        pass

    add_nothing.__qualname__ = "add_nothing"
    globals()["add_nothing"] = add_nothing
    return add_nothing


def names_of_g():
    return sorted(g)


def link(endpoint):
    return url_for(endpoint)


seen = []


def see(name):
    for variable in contextvars.copy_context():
        if variable.name == name:
            seen.append(variable.get())


@task(at_most_once=True)
def note_once(text):
    note(text)


def note_context():
    task = current_task()
    note(f"{names_of_g()} {url_for('page')} {task.id} {task.attempts} {task.name} {task.queue}")


def fail_unless(path):
    if not os.path.exists(path):
        raise ConnectionError


def seven():
    return 7


# What a task sees: noted, and the first attempt fails where there may be another one.


def note_and_try_again(seen):
    note(seen)
    if current_task().attempts == 1 and current_task().options.retries:
        raise ConnectionError


def see_arguments(*args):
    seen = str([*args])
    args[0].append("changed by an attempt")
    note_and_try_again(seen)


def see_application(*args):
    note_and_try_again(f"{current_app.name} {current_task().app is current_app._get_current_object()}")


def see_g(*args):
    seen = str({name: g.get(name) for name in sorted(g)})
    g.user = g.more = "changed by an attempt"
    note_and_try_again(seen)


def see_request(*args):
    errors = []
    for proxy, name in ((request, "path"), (session, "get")):
        try:
            getattr(proxy, name)
        except Exception as error:
            errors.append(type(error).__name__)
    note_and_try_again(" ".join(errors))


def see_link(*args):
    note_and_try_again(url_for("page"))


def trace_id():
    from opentelemetry import trace

    return trace.get_current_span().get_span_context().trace_id


def see_variables(*args):
    """Look at what is the same everywhere: the trace, of which there is none outside of one."""
    note_and_try_again(trace_id() == expected_trace)


expected_trace = 0
mine = contextvars.ContextVar("mine", default="nothing")


def see_variable(*args):
    note(mine.get())
