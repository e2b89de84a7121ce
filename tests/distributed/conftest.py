"""Brokers and workers of the tests' own, on free ports, to be killed at will."""

import contextlib
import importlib.util
import itertools
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import kombu
import psycopg
import pytest
import trustme
from amqp.exceptions import AMQPError
from ports import answers, free_port
from redis import Redis as RedisClient
from redis import RedisError
from waiting import wait_until

HERE = Path(__file__).parent

for name in ("jobs", "seen", "counted"):
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
jobs = sys.modules["jobs"]


def need(program):
    """Return where a server program is; without it these tests are skipped at home, and fail in CI."""
    found = shutil.which(program)
    if found is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{program} is not installed")
    return found


@pytest.fixture(name="wait_until")
def wait_until_fixture():
    return wait_until


class Redis:
    """A redis-server that keeps an append-only file."""

    def __init__(self, folder):
        self.port = free_port()
        self.folder = folder
        self.process = None
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def start(self, *options):
        command = [need("redis-server"), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        command += ["--appendonly", "yes", "--appendfsync", "always", "--save", "", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_until(lambda: answers(self.port) or self.process.poll() is not None, what="the start of redis-server")
        assert self.process.poll() is None, "redis-server did not start"
        wait_until(self.is_loaded, what="the end of its loading")
        return self

    def is_loaded(self):
        """Has it read its file? Until then it takes connections, and refuses commands."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 5) as connection:
            connection.sendall(b"PING\r\n")
            return not connection.recv(100).startswith(b"-LOADING")
        # Behind TLS, where it understands nothing of this.
        return True

    def tell(self, number):
        self.process.send_signal(number)

    def stop(self, number=signal.SIGTERM):
        self.tell(number)
        self.process.wait(10)


@pytest.fixture(scope="session")
def redis(tmp_path_factory):
    server = Redis(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.stop()


class RabbitMQ:
    """A RabbitMQ node of our own."""

    def __init__(self, folder):
        program = need("rabbitmq-server")
        # Debian's wrapper becomes the user rabbitmq, who may not write where the tests do.
        inner = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
        self.program = str(inner) if inner.exists() else program
        self.folder = folder
        self.process = None
        port = free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{port}//"
        self.environ = {
            **os.environ,
            "HOME": str(folder),
            # Not what the system's own node is configured with.
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "rabbitmq-env.conf"),
            "RABBITMQ_NODENAME": f"asok{port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(folder),
            "RABBITMQ_LOG_BASE": str(folder),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        }
        (folder / "rabbitmq.conf").write_text(f"listeners.tcp.default = 127.0.0.1:{port}\n")

    def start(self):
        with open(self.folder / "out", "ab") as log:
            # In its own folder, where it leaves a dump if it is killed at a bad moment.
            self.process = subprocess.Popen(
                [self.program],
                env=self.environ,
                cwd=self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if hasattr(os, "sched_setaffinity"):
            # On one processor: on a virtual machine its threads, waking each other, take three times as long on two.
            os.sched_setaffinity(self.process.pid, {random.choice(list(os.sched_getaffinity(0)))})
        wait_until(self.is_up, 60, "the start of rabbitmq-server")
        return self

    def is_up(self):
        """Does it take a connection? Its port is open long before it does."""
        with contextlib.suppress(OSError, AMQPError), kombu.Connection(self.url, connect_timeout=2) as connection:
            connection.connect()
            return True
        return False

    def tell(self, number):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def stop(self, number=signal.SIGKILL):
        self.tell(number)
        self.process.wait(20)


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory):
    node = RabbitMQ(tmp_path_factory.mktemp("rabbitmq"))
    try:
        yield node.start()
    finally:
        node.stop()


def forget_key(config):
    """Forget with which key the processes of other tests have signed: a worker with another one takes no task."""
    if config.get("ASOK_POSTGRES_URL") and "KEEPS_KEY" not in config:
        with psycopg.connect(config["ASOK_POSTGRES_URL"], autocommit=True) as connection:
            connection.execute("DELETE FROM asok_about")
    for name in ("result_backend", "broker_url"):
        url = config.get("ASOK_CELERY", {}).get(name) or ""
        if url.startswith("redis://"):
            with contextlib.suppress(RedisError), RedisClient.from_url(url, socket_timeout=2) as server:
                for key in server.scan_iter("*:probe"):
                    server.delete(key)


OF_CELERY = ["--loglevel", "INFO", "--without-mingle"]
"""The options of a worker on Celery. At its start it would ask other workers, and wait a second for their answers."""

STARTED = re.compile(r" ready\.|Running the tasks of .+ Ctrl-C to quit\.")
"""What a worker on Celery logs when it begins, and one on PostgreSQL prints."""


numbers = itertools.count()


class Worker:
    """`flask asok worker` as a process group of its own."""

    def __init__(self, folder, config, *options):
        forget_key(config)
        self.log_path = folder / f"worker-{next(numbers)}.log"
        self._log = open(self.log_path, "wb")  # noqa: SIM115
        path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "flask",
                "--app",
                "jobs:create_app()",
                "asok",
                "worker",
                *([] if config.get("ASOK_BACKEND") == "postgres" else OF_CELERY),
                *options,
            ],
            env={**os.environ, "PYTHONPATH": path, "JOBS_CONFIG": json.dumps(config)},
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def log(self):
        return self.log_path.read_text(errors="replace")

    def ready(self):
        wait_until(lambda: STARTED.search(self.log()) or self.process.poll() is not None, 40, "the start of a worker")
        assert self.process.poll() is None, self.log()
        return self

    def tell(self, number):
        """Send a signal to the main process alone."""
        self.process.send_signal(number)

    def tell_all(self, number=signal.SIGKILL):
        """Send a signal to the main process and its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def end(self):
        """Let it end in order: only then is it known which code it ran."""
        self.tell(signal.SIGTERM)
        self.process.wait(30)

    def close(self):
        self.tell_all()
        self.process.wait(10)
        self._log.close()


@pytest.fixture
def start_worker(tmp_path):
    """Start a worker for a configuration; it is killed after the test."""
    workers = []

    def start(config, *options):
        worker = Worker(tmp_path, config, *options)
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        worker.close()


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc):
    """Run the tests of a file that says so on PostgreSQL too: `ON_POSTGRES = True`."""
    if "config" in metafunc.fixturenames and getattr(metafunc.module, "ON_POSTGRES", False):
        marks = [mark for mark in metafunc.definition.iter_markers("parametrize") if "config" in mark.args[0]]
        if not marks:
            engines = pytest.mark.parametrize("config", ["redis", "rabbitmq", "postgres"], indirect=True)
            metafunc.definition.add_marker(engines)


@pytest.fixture(scope="session", params=["redis", "rabbitmq"])
def config(request, redis):
    """What application and worker share; tasks wait on Redis and on RabbitMQ alike, and where a file asks for it on
    PostgreSQL."""
    if request.param == "postgres":
        return request.getfixturevalue("postgres_config")
    broker = redis if request.param == "redis" else request.getfixturevalue("rabbitmq")
    return {"ASOK_CELERY": {"broker_url": broker.url, "result_backend": redis.url}}


@pytest.fixture(scope="session")
def postgres_config(postgres):
    """What application and worker share on PostgreSQL."""
    name = postgres.database("distributed")
    config = {"ASOK_BACKEND": "postgres", "ASOK_POSTGRES_URL": postgres.url(name), "ASOK_POSTGRES": {"dead_after": 3}}
    app = jobs.create_app(**config)
    with app.app_context():
        app.extensions["asok"].backend.set_up_tables()
    app.extensions["asok"].close(5)
    return config


@pytest.fixture(scope="session")
def workers():
    """The workers of all tests that do them no harm, by their configuration as JSON."""
    started = {}
    yield started
    for worker in started.values():
        worker.tell(signal.SIGTERM)
    for worker in started.values():
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.end()
        worker.close()


@pytest.fixture
def start_shared(workers, tmp_path_factory):
    """Return the one worker, of two processes, for a configuration."""

    def start(config):
        key = json.dumps(config)
        if key not in workers:
            workers[key] = Worker(tmp_path_factory.mktemp("worker"), config, "--concurrency", "2")
        return workers[key].ready()

    return start


@pytest.fixture
def worker(config, start_shared):
    """
    The one worker, of two processes, for a broker; None where tasks need none.

    Not a fixture of the session itself: pytest would keep it for a module that has a `config` of its own.
    """
    if config.get("ASOK_BACKEND", "celery") not in ("celery", "postgres"):
        return None
    return start_shared(config)


@pytest.fixture
def own_redis(tmp_path):
    """A server of this test alone, to be killed."""
    server = Redis(tmp_path).start()
    yield server
    with contextlib.suppress(ProcessLookupError):
        # A test may have stopped it for a while.
        server.tell(signal.SIGCONT)
        server.stop()


@pytest.fixture
def own_redis_with(tmp_path):
    """Start a server of this test alone, with further options; with `tls`, it speaks nothing else."""
    servers = []

    def start(*options, tls=False):
        (tmp_path / "redis").mkdir()
        server = Redis(tmp_path / "redis")
        servers.append(server)
        ports = ("--port", "0", "--tls-port", str(server.port)) if tls else ()
        return server.start(*ports, *options)

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(params=["rediss://127.0.0.1:{port}/0?ssl_cert_reqs=CERT_NONE", "redis+socket://{path}"])
def celery_url(request, tmp_path):
    """The URL, in Celery's own way, of a server behind TLS and behind a socket."""
    certificate = trustme.CA().issue_cert("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "pem"))
    # Not in tmp_path, which may be longer than the 107 characters that the path of a socket has.
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        port, path = free_port(), f"{folder}/socket"
        server = Redis(tmp_path).start(
            "--unixsocket", path, "--tls-port", str(port), "--tls-cert-file", str(tmp_path / "pem"),
            "--tls-key-file", str(tmp_path / "pem"), "--tls-ca-cert-file", str(tmp_path / "pem"),
            "--tls-auth-clients", "no",
        )  # fmt: skip
        yield request.param.format(port=port, path=path)
        server.stop()


@pytest.fixture(params=["redis", "rabbitmq"])
def own_broker(request, tmp_path):
    """A broker of this test alone, to be killed; the records are kept elsewhere."""
    (tmp_path / "broker").mkdir()
    broker = {"redis": Redis, "rabbitmq": RabbitMQ}[request.param](tmp_path / "broker")
    try:
        yield broker.start()
    finally:
        broker.stop(signal.SIGKILL)


@pytest.fixture
def app(config, close):
    app = jobs.create_app(**config)
    yield app
    close(app)


@pytest.fixture
def close():
    """Close an application and its connections."""

    def close(app):
        app.extensions["asok"].close(5)

    return close


@pytest.fixture
def alone(config, close):
    """Make an application with a name of its own, in its context: only the test's own workers take its tasks."""
    with contextlib.ExitStack() as stack:

        def make(**more):
            app = jobs.create_app(name=f"jobs{os.urandom(4).hex()}", **config, **more)
            stack.callback(close, app)
            stack.enter_context(app.app_context())
            return app

        yield make


@pytest.fixture
def other(config, close, worker):
    """Another application object of the same configuration: it holds no Task, as another process holds none."""
    app = jobs.create_app(**config)
    yield app
    close(app)


@pytest.fixture
def ctx(app, worker):
    """An app context of an application whose worker runs."""
    with app.app_context():
        yield app
