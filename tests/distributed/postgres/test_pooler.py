"""A pooler between the application and its database, which gives each transaction another connection."""

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import jobs
import pytest
from jobs import Purchase, database

from flask_asok import background

SETTINGS = """
[databases]
* = host=127.0.0.1 port={server} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
auth_type = any
pool_mode = transaction
unix_socket_dir =
"""


@pytest.fixture
def pooler(postgres, free_port, wait_until):
    """A pgbouncer before the server of the tests; its port."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("pgbouncer is not installed")
    # Not in pytest's own folder, see PostgreSQL: it does not run as root either.
    with tempfile.NamedTemporaryFile("w", prefix="asok-pgbouncer-", suffix=".ini") as file:
        file.write(SETTINGS.format(server=postgres.port, port=free_port))
        file.flush()
        os.chmod(file.name, 0o644)
        process = subprocess.Popen(
            [program, "--quiet", file.name], user=postgres.user, cwd=Path(file.name).parent,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wait_until(lambda: is_open(free_port) or process.poll() is not None, what="the start of pgbouncer")
        yield free_port
        process.kill()
        process.wait(10)


def is_open(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("is_bypassed", [True, False], ids=["past it", "through it"])
def test_pooler(pooler, postgres, shop_database, start_worker, close, is_bypassed):
    """A worker goes past the pooler by ASOK_POSTGRES_URL; or through it, where it looks for tasks and hears nothing."""
    config = {
        "NAME": f"pooled{os.urandom(4).hex()}", "ASOK_BACKEND": "postgres",
        "SQLALCHEMY_DATABASE_URI": f"postgresql+psycopg2://postgres@127.0.0.1:{pooler}/{shop_database}",
        **({"ASOK_POSTGRES_URL": postgres.url(shop_database)} if is_bypassed else {"ASOK_POSTGRES": {"listen": False}}),
    }  # fmt: skip
    app = jobs.create_app(**config)
    worker = start_worker(config)
    with app.app_context():
        database.session.add(Purchase(text="a book"))
        tasks = [background(jobs.add, number) for number in range(10)]
        database.session.commit()

        ended = [task.result(30) for task in tasks]
        database.session.remove()
        database.engine.dispose()
    close(app)

    assert ended == list(range(10))
    assert "WARNING" not in worker.log()
