"""Open the SQLite file of a store: where it may lie, whose it is, and what is done with one that is damaged."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import sqlite3
import stat
import time
from pathlib import Path

from ..errors import BackendUnavailable, NotConfigured
from ..logs import log
from . import lifeline

SCHEMA = 1
"""The number of this schema. A later one only adds, so a file of it can be used by this release as well ..."""

READABLE = 1
"""... unless it says that it needs a reader of a later one."""

# The tables are ordered by their keys, and ids by the time of the call: so a list of the newest tasks needs no index,
# and a task is one step in one tree. Each index more would cost each call, or its end, as much as a third of that.
# What ended lately is read from its index alone, an eighth of the time that the rows would take.
TABLES = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS task (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    queue TEXT NOT NULL,
    function TEXT NOT NULL DEFAULT '',
    origin TEXT NOT NULL DEFAULT '',
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    enqueued REAL NOT NULL,
    due REAL NOT NULL,
    scheduled REAL NOT NULL DEFAULT 0,
    started REAL NOT NULL DEFAULT 0,
    finished REAL NOT NULL DEFAULT 0,
    owner TEXT NOT NULL DEFAULT '',
    claim INTEGER NOT NULL DEFAULT 0,
    deaths INTEGER NOT NULL DEFAULT 0,
    key TEXT NOT NULL DEFAULT '',
    unique_key TEXT NOT NULL DEFAULT '',
    stopping INTEGER NOT NULL DEFAULT 0,
    progress TEXT,
    error TEXT NOT NULL DEFAULT '',
    traceback TEXT NOT NULL DEFAULT '',
    outcome TEXT,
    message TEXT,
    history TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS task_key ON task (key) WHERE key <> '';
CREATE INDEX IF NOT EXISTS task_open ON task (owner, due) WHERE finished = 0;
CREATE INDEX IF NOT EXISTS task_settled ON task (finished, started, name, queue, state) WHERE finished > 0;
CREATE TABLE IF NOT EXISTS process (
    token TEXT PRIMARY KEY, host TEXT NOT NULL, pid INTEGER NOT NULL, kind TEXT NOT NULL, since REAL NOT NULL,
    queues TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tick (name TEXT PRIMARY KEY, at REAL NOT NULL, task_id TEXT NOT NULL) WITHOUT ROWID;
"""

BUSY_SECONDS = 10.0
"""How long a write waits for those of other processes. Each of them takes some microseconds."""

REMOTE = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs"})
"""File systems on which the locks of SQLite, or ours, cannot be relied on."""

MOUNTS = Path("/proc/self/mountinfo")
"""Where Linux lists what is mounted."""

SUSPECT = ".suspect"
"""The end of the name of the file beside a store that is to be checked."""

PASSING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT, errno.EIO})
"""What is wrong with the machine, and not with the path: no file descriptors or no room left."""

_HELP = "Set ASOK_STORE to a path that this process can write."


def make(path: str) -> None:
    """Make the empty file, 0600, and its folder, 0700, where they are missing. NotConfigured says what is wrong."""
    folder = os.path.dirname(path)
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        _refuse_remote(path)
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISREG(os.lstat(path).st_mode):
                raise NotConfigured(f"{path} is not a plain file. Set ASOK_STORE to another path.")
            return
        # Made beside it and then named: no descriptor of the file itself is ever closed here, which would drop the
        # locks that SQLite holds on it for another application of this process.
        spare = f"{path}.{os.getpid()}.{time.monotonic_ns()}.new"
        os.close(os.open(spare, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        try:
            with contextlib.suppress(FileExistsError):
                os.link(spare, path)
        finally:
            os.unlink(spare)
    except OSError as error:
        if error.errno in PASSING:
            raise BackendUnavailable(f"The store {path} cannot be used: {error.strerror}.") from None
        raise NotConfigured(f"The store {path} cannot be made: {error.strerror}. {_HELP}") from None


def connect(path: str, app_name: str, *, sync: str = "normal") -> sqlite3.Connection:
    """
    Return a connection to the store of the application `app_name` at `path`, which exists.

    Raises NotConfigured for a file that is another application's or a later release's, and for one that cannot be
    written; BackendUnavailable for a damaged one that other processes have open. A damaged one that nobody has open is
    set aside under another name, with an ERROR, and a new one takes its place.
    """
    try:
        connection = _connected(path, app_name, sync)
        if os.path.exists(path + SUSPECT) and not _others_of(path):
            _check(connection)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path + SUSPECT)
        return connection
    except sqlite3.DatabaseError as error:
        if not is_damaged(error):
            raise unavailable(path, error) from None
        _set_aside(path, error)
        make(path)
        return _connected(path, app_name, sync)


def unavailable(path: str, error: sqlite3.Error) -> Exception:
    """Return the error of ours for one of SQLite's."""
    code = getattr(error, "sqlite_errorname", "")
    if code == "SQLITE_CANTOPEN" and os.access(path, os.R_OK | os.W_OK):
        # No file descriptors are left, most likely.
        return BackendUnavailable(f"The store {path} cannot be opened: {error}.")
    if code.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return NotConfigured(f"The store {path} cannot be written: {error}. {_HELP}")
    return BackendUnavailable(f"The store {path} cannot be used: {error}.")


def _connected(path: str, app_name: str, sync: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        # First: a file that is not ours must stay as it is.
        schema = _checked_schema(connection, path, app_name)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {'FULL' if sync == 'full' else 'NORMAL'}")
        # Each checkpoint waits for the disk, and writes a page once however often it has changed: four times as rare as
        # by default, it is cheaper, and the WAL as large as the limit above which it is cut.
        connection.execute("PRAGMA wal_autocheckpoint = 4000")
        connection.execute("PRAGMA journal_size_limit = 16777216")
        if schema < SCHEMA:
            _make_tables(connection, app_name)
    except BaseException:
        connection.close()
        raise
    return connection


def _checked_schema(connection: sqlite3.Connection, path: str, app_name: str) -> int:
    """Return the number of the schema, 0 for an empty file; NotConfigured for a file that is not this application's."""
    (count,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if not count:
        return 0
    try:
        about = dict(connection.execute("SELECT name, value FROM about"))
    except sqlite3.OperationalError:
        about = {}
    if "app" not in about:
        raise NotConfigured(f"{path} is a database of something else. Set ASOK_STORE to another path.")
    if about["app"] != app_name:
        raise NotConfigured(
            f"{path} is the store of the application {about['app']!r}, not of {app_name!r}. "
            "Give each application a store of its own: ASOK_STORE."
        )
    try:
        readable, schema = int(about["readable"]), int(about["schema"])
    except (KeyError, TypeError, ValueError):
        raise NotConfigured(
            f"{path} does not say which release has written it: it is damaged. Move it away, and a new one is made."
        ) from None
    if readable > SCHEMA:
        raise NotConfigured(f"{path} was written by a later release of Flask-Asok. Upgrade this application.")
    return schema


def _make_tables(connection: sqlite3.Connection, app_name: str) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in TABLES.split(";"):
            connection.execute(statement)
        values = {"app": app_name, "schema": str(SCHEMA), "readable": str(READABLE)}
        connection.executemany("INSERT OR REPLACE INTO about (name, value) VALUES (?, ?)", values.items())
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _check(connection: sqlite3.Connection) -> None:
    """Raise DatabaseError, with the connection closed, if a page of the file is damaged. It reads all of them."""
    try:
        (said,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if said != "ok":
            raise _Damaged(said)
    except sqlite3.DatabaseError:
        connection.close()
        raise


class _Damaged(sqlite3.DatabaseError):
    sqlite_errorname = "SQLITE_CORRUPT"


def suspect(path: str) -> None:
    """Note that a page was found damaged, for the next process that connects while no other one lives."""
    with contextlib.suppress(OSError):
        os.close(os.open(path + SUSPECT, os.O_WRONLY | os.O_CREAT, 0o600))


def is_damaged(error: sqlite3.Error) -> bool:
    """Return True if SQLite has found a page damaged."""
    return getattr(error, "sqlite_errorname", "").startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB"))


def _others_of(path: str) -> list[str]:
    """Return the other processes that live, and have the file open."""
    found = (token for token in lifeline.tokens(path) if not lifeline.is_own(path, token))
    return [token for token in found if lifeline.is_alive(path, token)]


def _set_aside(path: str, error: sqlite3.Error) -> None:
    alive = _others_of(path)
    if alive:
        raise BackendUnavailable(
            f"The store {path} is damaged ({error}), and {len(alive)} other processes have it open. "
            "Stop them all, and start them again."
        )
    with contextlib.suppress(OSError):
        os.unlink(path + SUSPECT)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    try:
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.rename(path + suffix, f"{path}.damaged-{stamp}{suffix}")
    except OSError as failed:
        raise BackendUnavailable(
            f"The store {path} is damaged ({error}), and cannot be set aside: {failed.strerror}."
        ) from None
    log(logging.ERROR, "The store %s was damaged (%s). It is kept as %s.damaged-%s.", path, error, path, stamp)


def mount_of(path: str) -> tuple[str, str]:
    """Return the mount point that `path` lies below, and its type; ("", "") where the system does not tell."""
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return "", ""
    found = ("", "")
    real = os.path.realpath(path)
    for line in lines:
        before, _, after = line.partition(" - ")
        # A blank in a name is written as \040.
        point = re.sub(r"\\(\d{3})", lambda escaped: chr(int(escaped[1], 8)), before.split(" ")[4])
        if len(point) >= len(found[0]) and (real + "/").startswith(point.rstrip("/") + "/"):
            found = point, after.split(" ")[0]
    return found


def _refuse_remote(path: str) -> None:
    point, kind = mount_of(path)
    if kind in REMOTE:
        raise NotConfigured(
            f"The store {path} lies on {point}, a mount of type {kind}, whose locks cannot be relied on. "
            "Set ASOK_STORE to a path on a disk of this machine."
        )
