"""
Tear at PostgreSQL: kill gunicorn's processes while they serve and work, take the database away, fill its tables.

`python benchmarks/postgres_soak.py [web] [away] [bulk]` prints a line for each finding, and exits with 1 if one is not
as promised. It starts a PostgreSQL and gunicorn of its own. Method and caveats: README.md in this folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:] = [path for path in sys.path if path != str(ROOT / "benchmarks")]
sys.path += [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "distributed")]

import jobs  # noqa: E402
from postgresql import PostgreSQL  # noqa: E402

from flask_asok import background  # noqa: E402

TASKS = 2_000
AWAY_SECONDS = 60
FINISHED, DELAYED = 50_000, 20_000
DEAD_AFTER, POOL = 5, 4

failures: list[str] = []


def tell(what: str, found: object, is_right: bool) -> None:
    print(f"{'ok  ' if is_right else 'FAIL'} {what}: {found}", flush=True)
    if not is_right:
        failures.append(what)


class Site:
    """gunicorn with four processes of four threads, which run the tasks too."""

    def __init__(self, server: PostgreSQL, name: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.config = {
            "NAME": name, "ASOK_BACKEND": "postgres", "ASOK_WORKER": "web",
            "ASOK_POSTGRES": {"dead_after": DEAD_AFTER, "pool": POOL},
            "SQLALCHEMY_DATABASE_URI": server.url("soak", "postgresql+psycopg"),
        }  # fmt: skip
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "distributed")])
        command = ["-m", "gunicorn", "--preload", "--workers", "4", "--threads", "4", "--graceful-timeout", "15"]
        self.process = subprocess.Popen(
            [sys.executable, *command, "--bind", f"127.0.0.1:{self.port}", "jobs:create_app()"],
            env={**os.environ, "PYTHONPATH": path, "JOBS_CONFIG": json.dumps(self.config)},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        until(self.answers, 60)

    def buy(self, path: Path) -> bool:
        """Buy, and say whether the site has confirmed that."""
        data = urllib.parse.urlencode({"path": str(path)}).encode()
        url = f"http://127.0.0.1:{self.port}/buy"
        with contextlib.suppress(OSError, HTTPException), urllib.request.urlopen(url, data, timeout=30) as answer:
            return answer.read() == b"bought"
        return False

    def answers(self) -> bool:
        url = f"http://127.0.0.1:{self.port}/page"
        with contextlib.suppress(OSError, HTTPException), urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
        return False

    def processes(self) -> list[int]:
        found = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True)
        return [int(pid) for pid in found.stdout.split()]

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def until(condition: Any, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return False


def lines_of(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def web(server: PostgreSQL, folder: Path) -> None:
    """Send 2,000 orders to the site, while one of its processes is killed with -9 every few seconds."""
    site, path = Site(server, "web"), folder / "bought"
    bought = [0] * 8
    over = threading.Event()
    connections: list[int] = []

    def visit(number: int) -> None:
        for _ in range(TASKS // 8):
            bought[number] += site.buy(path)

    def kill() -> None:
        while not over.wait(4):
            connections.append(count(server))
            with contextlib.suppress(ProcessLookupError, IndexError):
                os.kill(random.choice(site.processes()), signal.SIGKILL)

    visitors = [threading.Thread(target=visit, args=(number,)) for number in range(8)]
    killer = threading.Thread(target=kill)
    for thread in (*visitors, killer):
        thread.start()
    for thread in visitors:
        thread.join()
    over.set()
    killer.join()
    orders = server.execute("SELECT id FROM purchase", database="soak")
    ids = {str(id) for (id,) in orders}
    until(lambda: len(set(lines_of(path))) >= len(ids), 120)
    runs = Counter(lines_of(path))
    tell("orders that were confirmed, and orders in the database", (sum(bought), len(ids)), sum(bought) <= len(ids))
    tell("orders without their task", len(ids - set(runs)), ids <= set(runs))
    tell("tasks without their order", len(set(runs) - ids), set(runs) <= ids)
    again = sum(number - 1 for number in runs.values())
    tell("runs that a kill has repeated", again, again <= 2 * len(connections))
    tell("connections of ours at most", max(connections), max(connections) <= 4 * (POOL + 2))
    site.process.terminate()
    site.process.wait(60)
    left = server.execute("SELECT count(*) FROM procrastinate_jobs", database="soak")[0][0]
    tell("rows of the engine after the end", left, left <= 2 * len(connections))
    site.close()


def count(server: PostgreSQL) -> int:
    found = server.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'flask_asok'")
    return int(found[0][0])


def away(server: PostgreSQL, folder: Path) -> None:
    """Refuse all connections for a minute: pages without the database answer, and tasks run again soon after."""
    site, path = Site(server, "away"), folder / "away"
    site.buy(path)
    until(lambda: lines_of(path), 30)
    server.execute("ALTER DATABASE soak ALLOW_CONNECTIONS false")
    server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'soak'")
    answers, ends = [], time.monotonic() + AWAY_SECONDS
    while time.monotonic() < ends:
        answers.append(site.answers())
        time.sleep(0.5)
    before = set(site.processes())
    server.execute("ALTER DATABASE soak ALLOW_CONNECTIONS true")
    back = time.monotonic()
    until(lambda: site.buy(path), 30)
    until(lambda: len(lines_of(path)) == 2, 60)
    seconds = time.monotonic() - back
    tell("pages that were not answered", answers.count(False), all(answers))
    tell("tasks run again after s", f"{seconds:.1f}", seconds < 20)
    tell("processes that have ended", len(before - set(site.processes())), before == set(site.processes()))
    site.close()


@contextlib.contextmanager
def worker(config: dict[str, Any]) -> Iterator[None]:
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "distributed")])
    process = subprocess.Popen(
        [sys.executable, "-m", "flask", "--app", "jobs:create_app()", "asok", "worker"],
        env={**os.environ, "PYTHONPATH": path, "JOBS_CONFIG": json.dumps(config)},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    yield
    process.kill()
    process.wait()


def bulk(server: PostgreSQL, folder: Path) -> None:
    """Let a worker run with 50,000 tasks that are to be forgotten, and 20,000 that are due tomorrow."""
    config = {"NAME": "bulk", "ASOK_BACKEND": "postgres", "ASOK_POSTGRES_URL": server.url("soak")}
    server.execute("TRUNCATE asok_tasks, procrastinate_jobs CASCADE", database="soak")
    fill = """
        INSERT INTO asok_tasks (id, app, name, queue, state, enqueued, due, finished, message)
        SELECT to_hex(CAST(extract(epoch FROM clock_timestamp()) * 1e6 AS bigint)) || substr(md5(random()::text), 14),
            'bulk', 'noop', 'default', %s, 1, extract(epoch FROM now()) + 86400, %s, %s
        FROM generate_series(1, %s) AS n"""
    server.execute(fill, ["succeeded", 1.0, None, FINISHED], "soak")
    server.execute(fill, ["waiting", 0.0, "x" * 600, DELAYED], "soak")
    server.execute("ANALYZE asok_tasks", database="soak")
    server.execute("SELECT pg_stat_statements_reset()", database="soak")
    app = jobs.create_app(**config)
    with worker(config), app.app_context():
        for number in range(300):
            background(jobs.add, number)
        left = "SELECT count(*) FROM asok_tasks WHERE state = 'succeeded' AND finished < 10"
        until(lambda: server.execute(left, database="soak") == [(0,)], 120)
        background(jobs.add, 1).result(30)
        time.sleep(3)
    app.extensions["asok"].close(1)
    seen = server.execute(
        "SELECT max_exec_time, query FROM pg_stat_statements "
        "WHERE query ~ 'asok_|procrastinate_' AND query !~ '^SELECT count' ORDER BY 1 DESC LIMIT 1",
        database="soak",
    )
    fetch = server.execute(
        "SELECT sum(total_exec_time) / sum(calls) FROM pg_stat_statements WHERE query ~ 'FROM asok_fetch'",
        database="soak",
    )
    due = server.execute(
        "SELECT sum(total_exec_time) / sum(calls) FROM pg_stat_statements WHERE query ~ 'ORDER BY due LIMIT'",
        database="soak",
    )
    sizes = []
    for _ in range(3):
        server.execute(fill, ["succeeded", 1.0, None, FINISHED], "soak")
        sizes.append(size_of(server))
        server.execute("DELETE FROM asok_tasks", database="soak")
        server.execute("VACUUM asok_tasks, procrastinate_jobs, procrastinate_events", database="soak")
    rows_left, vacuumed = size_of(server, "pg_table_size"), size_of(server)
    for name in ("asok_tasks", "procrastinate_jobs", "procrastinate_events"):
        server.execute(f"REINDEX TABLE CONCURRENTLY {name}", database="soak")
    reindexed = size_of(server)
    tell("longest statement, ms", f"{seen[0][0]:.0f} ({' '.join(seen[0][1].split())[:60]} ...)", seen[0][0] < 500)
    tell("fetch beside 20,000 that are due tomorrow, ms", f"{fetch[0][0]:.2f}", fetch[0][0] < 10)
    tell("look for what is due, ms", f"{due[0][0] or 0:.2f}", (due[0][0] or 0) < 10)
    filled, again = (f"{size / 1e6:.1f}" for size in sizes[1:])
    tell("tables filled, and filled anew, MB", f"{filled}, {again}", sizes[2] < 1.2 * sizes[1])
    of_rows, of_all = f"{rows_left / 1e6:.1f}", f"{vacuumed / 1e6:.1f}"
    tell("rows, and all, once they are forgotten, MB", f"{of_rows}, {of_all}", rows_left < 1e6)
    tell("all after REINDEX, MB", f"{reindexed / 1e6:.1f}", reindexed < 5e6)


def size_of(server: PostgreSQL, function: str = "pg_total_relation_size") -> int:
    found = server.execute(
        f"SELECT CAST(sum({function}(c.oid)) AS bigint) FROM pg_class c "
        "WHERE relkind = 'r' AND relname ~ '^asok_|^procrast'",
        database="soak",
    )
    return int(found[0][0])


def main() -> int:
    wanted = sys.argv[1:] or ["web", "away", "bulk"]
    server = PostgreSQL().start("-c", "shared_preload_libraries=pg_stat_statements", "-c", "fsync=on")
    try:
        server.database("soak")
        server.execute("CREATE EXTENSION pg_stat_statements", database="soak")
        config = {"SQLALCHEMY_DATABASE_URI": server.url("soak", "postgresql+psycopg"), "ASOK_BACKEND": "postgres"}
        app = jobs.create_app(**config)
        with app.app_context():
            app.extensions["asok"].backend.set_up_tables()
            jobs.database.create_all()
            jobs.database.engine.dispose()
        app.extensions["asok"].close(1)
        with tempfile.TemporaryDirectory() as folder:
            for name in wanted:
                print(f"\n{name}: {globals()[name].__doc__}", flush=True)
                globals()[name](server, Path(folder))
    finally:
        server.close()
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
