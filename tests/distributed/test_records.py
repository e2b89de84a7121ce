"""Where the records of tasks are kept, however Celery's settings name a Redis, and what is told when it is away."""

import contextlib
import re
import signal
import ssl
import subprocess

import jobs
import pytest
import redis as redis_py
import trustme

from flask_asok import BackendUnavailable, FlaskAsok, NotConfigured, background

ON_POSTGRES = True

asok = FlaskAsok()


@pytest.fixture
def config():
    """Each test has its own."""
    return {"ASOK_BACKEND": "celery"}


@pytest.fixture
def shop(close):
    """Make an application whose Celery is set so."""
    apps = []

    def shop(**settings):
        app = jobs.create_app(ASOK_CELERY=settings)
        apps.append(app)
        return app

    yield shop
    for app in apps:
        close(app)


@pytest.fixture
def tls(own_redis_with, tmp_path):
    """A Redis that speaks TLS alone, whose certificate is of a private authority; the settings that know it."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "pem"))
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    server = own_redis_with(
        "--tls-cert-file", str(tmp_path / "pem"), "--tls-key-file", str(tmp_path / "pem"),
        "--tls-ca-cert-file", str(tmp_path / "ca.pem"), "--tls-auth-clients", "no", tls=True,
    )  # fmt: skip
    server.trusting = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": str(tmp_path / "ca.pem")}
    return server


def over(server, scheme):
    return f"{scheme}://127.0.0.1:{server.port}/0"


SETTINGS = {
    "broker": lambda tls: {"broker_url": over(tls, "rediss"), "broker_use_ssl": tls.trusting},
    "broker, plain scheme": lambda tls: {"broker_url": over(tls, "redis"), "broker_use_ssl": tls.trusting},
    "unverified": lambda tls: {"broker_url": over(tls, "rediss"), "broker_use_ssl": {"ssl_cert_reqs": ssl.CERT_NONE}},
    "unverified by name": lambda tls: {
        "broker_url": over(tls, "rediss"),
        "broker_use_ssl": {"ssl_cert_reqs": "none"},
        "redis_backend_use_ssl": {"ssl_cert_reqs": "none"},
    },
    "result backend": lambda tls: {
        "broker_url": over(tls, "rediss"),
        "broker_use_ssl": tls.trusting,
        "result_backend": over(tls, "rediss"),
        "redis_backend_use_ssl": tls.trusting,
    },
    "list of one": lambda tls: {"broker_url": [over(tls, "rediss")], "broker_use_ssl": tls.trusting},
    "written elsewhere": lambda tls: {"broker_write_url": over(tls, "rediss"), "broker_use_ssl": tls.trusting},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_tls(tls, shop, settings):
    """A Redis with a certificate of a private authority keeps the records, as it takes the messages."""
    app = shop(**settings(tls))

    with app.app_context():
        task = background.using(delay=60)(jobs.add, 1)

        assert (task.state, asok.get(task.id).state) == ("waiting", "waiting")
        assert task.cancel()


def test_tls_in_a_worker(tls, shop, start_worker):
    """A worker with these settings runs the task, and its result is there."""
    settings = {
        "broker_url": over(tls, "rediss"),
        "broker_use_ssl": {"ssl_cert_reqs": "required", "ssl_ca_certs": tls.trusting["ssl_ca_certs"]},
    }
    app = shop(**settings)
    start_worker({"ASOK_CELERY": settings}, "--concurrency", "1").ready()

    with app.app_context():
        assert background(jobs.add, 1, 2).result(20) == 3


def test_untrusted(tls, shop):
    """A certificate that is not trusted is told of as that."""
    app = shop(broker_url=over(tls, "rediss") + "?ssl_cert_reqs=required")

    with (
        app.app_context(),
        pytest.raises(BackendUnavailable, match=r"127\.0\.0\.1:\d+: its certificate is not trusted"),
    ):
        background(jobs.add, 1)


@pytest.fixture
def sentinel(own_redis, free_port, tmp_path):
    """A sentinel that knows our Redis as `shop`."""
    port = free_port
    path = tmp_path / "sentinel.conf"
    path.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {tmp_path}\nsentinel monitor shop 127.0.0.1 {own_redis.port} 1\n"
    )
    process = subprocess.Popen(["redis-server", str(path), "--sentinel"], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if "+monitor" in line:
            break
    yield port
    process.send_signal(signal.SIGTERM)
    process.wait(10)
    process.stdout.close()


@pytest.mark.parametrize("setting", ["broker", "result backend"])
def test_sentinel(sentinel, own_redis, shop, setting):
    """Records are kept by the master that the sentinels know, one of which may be down."""
    url = f"sentinel://127.0.0.1:1/1;sentinel://127.0.0.1:{sentinel}/1"
    settings = {"broker_url": url, "broker_transport_options": {"master_name": "shop"}}
    if setting == "result backend":
        settings = {
            "broker_url": own_redis.url,
            "result_backend": url,
            "result_backend_transport_options": {"master_name": "shop"},
        }
    app = shop(**settings)

    with app.app_context():
        task = background.using(delay=60)(jobs.add, 1)

        assert (task.state, asok.get(task.id).state) == ("waiting", "waiting")
    with redis_py.Redis(port=own_redis.port, db=1, decode_responses=True) as redis:
        assert f"asok:jobs:task:{task.id}" in redis.scan_iter()


def test_sentinel_without_a_master(shop):
    """Without the name of the master the call says what to set."""
    app = shop(broker_url="sentinel://127.0.0.1:1")

    with app.app_context(), pytest.raises(NotConfigured, match="'master_name' in the transport options"):
        background(jobs.add, 1)


@pytest.mark.parametrize(
    ("settings", "prefix"),
    [
        ({"broker_transport_options": {"global_keyprefix": "staging"}}, "staging"),
        ({"result_backend_transport_options": {"global_keyprefix": "staging"}, "result_backend": True}, "staging_"),
        ({"result_backend_transport_options": {"global_keyprefix": "staging:"}, "result_backend": True}, "staging:"),
    ],
)
def test_prefix(own_redis, shop, settings, prefix):
    """Every key begins with Celery's prefix, where it has one."""
    if "result_backend" in settings:
        settings = {**settings, "result_backend": own_redis.url.replace("/0", "/1")}
    app = shop(broker_url=own_redis.url, **settings)

    with app.app_context():
        task = background.using(delay=60)(jobs.add, 1)
        task.cancel()

    with redis_py.Redis(port=own_redis.port, db=1 if len(settings) == 2 else 0, decode_responses=True) as redis:
        assert {key for key in redis.scan_iter() if key.endswith(task.id)} == {f"{prefix}asok:jobs:task:{task.id}"}


@pytest.mark.parametrize(
    "url",
    [
        ["redis://127.0.0.1/0", "redis://127.0.0.1/1"],
        ("redis://127.0.0.1/0", "redis://127.0.0.1/1"),
        "redis://127.0.0.1/0;redis://127.0.0.1/1",
        ["redis://127.0.0.1/0;redis://127.0.0.1/1"],
        ["amqp://127.0.0.1", "redis://127.0.0.1/1"],
    ],
)
def test_several(own_redis, shop, url):
    """Of several brokers none can keep the records of all: the call and the worker say so, and what to set."""
    app = shop(broker_url=url)

    with app.app_context():
        with pytest.raises(NotConfigured, match=r"broker_url names 2 servers, .* set ASOK_CELERY\['result_backend'\]"):
            background.using(when="response")(jobs.add, 1)
        assert app.extensions["asok"].backend.tasks() == []
    worker = app.test_cli_runner().invoke(args=["asok", "worker"])
    assert worker.exit_code == 2
    assert "broker_url names 2 servers" in worker.output


def test_several_with_a_result_backend(own_redis, shop):
    """With a result backend several brokers are one beside the other, as for Celery."""
    app = shop(broker_url=[own_redis.url, own_redis.url.replace("/0", "/1")], result_backend=own_redis.url)

    with app.app_context():
        task = background.using(delay=60)(jobs.add, 1)

        assert (task.state, asok.get(task.id).state) == ("waiting", "waiting")


@pytest.mark.parametrize("key", ["broker_url", "result_backend"])
def test_misspelt(own_redis, shop, key):
    """A misspelt scheme is told of by the setting."""
    app = shop(**{"broker_url": own_redis.url, key: "reddis://me:a-password@127.0.0.1/0"})

    with app.app_context(), pytest.raises(NotConfigured, match=rf"ASOK_CELERY\['{key}'\].*reddis") as raised:
        background(jobs.add, 1)

    assert "a-password" not in str(raised.value)


def acl(own_redis):
    with redis_py.Redis(port=own_redis.port) as redis:
        redis.execute_command("ACL", "SETUSER", "web", "on", ">a-password", "~jobs.*", "~_kombu.*", "&*", "+@all")
    return f"redis://web:a-password@127.0.0.1:{own_redis.port}/0"


def wrong_password(own_redis):
    with redis_py.Redis(port=own_redis.port) as redis:
        redis.execute_command("ACL", "SETUSER", "web", "on", ">another", "~*", "&*", "+@all")
    return f"redis://web:a-password@127.0.0.1:{own_redis.port}/0"


def silent(own_redis):
    own_redis.tell(signal.SIGSTOP)
    return f"redis://:a-password@127.0.0.1:{own_redis.port}/0"


REFUSALS = [
    (lambda _: "redis://:a-password@127.0.0.1:1/0", r"127\.0\.0\.1:1: connection refused\."),
    (lambda _: "redis://:a-password@no-host.invalid/0", r"no-host\.invalid:6379: the host's name is unknown\."),
    (lambda _: "redis+socket:///nowhere/socket", r"/nowhere/socket: no such file or directory\."),
    (wrong_password, r"127\.0\.0\.1:\d+: the user or password is refused\."),
    (silent, r"127\.0\.0\.1:\d+: no answer in time\."),
]


@pytest.mark.parametrize(
    ("prepare", "text"),
    [*REFUSALS, (acl, r"127\.0\.0\.1:\d+: the user's ACL does not permit it\. It needs the keys asok:jobs:\*")],
)
def test_records_out_of_reach(own_redis, redis, shop, prepare, text):
    """The error tells which Redis and why, and no credentials."""
    app = shop(broker_url=redis.url, result_backend=prepare(own_redis))

    with app.app_context(), pytest.raises(BackendUnavailable, match=f"The Redis .* cannot be used: {text}") as raised:
        background(jobs.add, 1)

    assert not re.search("a-password|redis://", str(raised.value))


@pytest.mark.parametrize(
    ("prepare", "text"),
    [*REFUSALS, (lambda _: "amqp://me:a-password@127.0.0.1:1//", r"127\.0\.0\.1:1: connection refused\.")],
)
def test_broker_out_of_reach(own_redis, redis, shop, prepare, text):
    """So does the error of the broker."""
    app = shop(broker_url=prepare(own_redis), result_backend=redis.url)

    with app.app_context(), pytest.raises(BackendUnavailable, match=f"The broker cannot be reached: {text}") as raised:
        background(jobs.add, 1)

    assert not re.search("a-password|redis://|amqp://", str(raised.value))


def test_broker_that_refuses_the_login(rabbitmq, redis, shop):
    """A refused password of RabbitMQ is told of as that."""
    app = shop(broker_url=rabbitmq.url.replace("guest:guest", "guest:a-password"), result_backend=redis.url)

    with app.app_context(), pytest.raises(BackendUnavailable, match="the user or password is refused") as raised:
        background(jobs.add, 1)

    assert "a-password" not in str(raised.value)


def test_worker_without_its_records(redis, start_worker, wait_until):
    """A worker that cannot reach the records says so when it starts."""
    worker = start_worker(
        {"NAME": "lost", "ASOK_CELERY": {"broker_url": redis.url, "result_backend": "redis://:a-password@127.0.0.1:1"}}
    )

    wait_until(lambda: "127.0.0.1:1: connection refused" in worker.log(), 40, "the warning")
    with contextlib.suppress(ProcessLookupError):
        worker.tell_all()
    assert "a-password" not in worker.log()


@pytest.mark.parametrize(
    "store", ["memory", "asok.sqlite3", "/srv/shop/asok.sqlite3", "postgresql://shop:a-password@db/shop"]
)
def test_store_that_is_no_redis(store):
    """A store that no worker could see is refused when the app is set up; the error says what to set, and no secret."""
    with pytest.raises(ValueError, match=r"ASOK_STORE must be .*redis://") as raised:
        jobs.create_app(ASOK_STORE=store, ASOK_CELERY={"broker_url": "redis://127.0.0.1:1"})

    assert "a-password" not in str(raised.value)


def test_store(own_redis, rabbitmq, redis, close, start_worker):
    """The Redis that ASOK_STORE names keeps the records, whatever broker and result backend are."""
    config = {
        "NAME": "stored",
        "ASOK_STORE": own_redis.url,
        "ASOK_CELERY": {"broker_url": rabbitmq.url, "result_backend": redis.url},
    }
    start_worker(config, "--concurrency", "1").ready()
    app = jobs.create_app(**config)

    with app.app_context():
        task = background(jobs.add, 1)

        assert asok.get(task.id).result(20) == 1
    with redis_py.Redis(port=own_redis.port) as stored, redis_py.Redis(port=redis.port) as other:
        assert stored.exists(f"asok:stored:task:{task.id}")
        assert not other.exists(f"asok:stored:task:{task.id}")
    close(app)
