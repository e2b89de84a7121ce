"""What others put into a queue of a worker: it is logged and dropped, and the worker goes on."""

import base64
import json

import jobs
import kombu
import pytest
import redis as redis_py

from flask_asok import background
from flask_asok.backends.celery.hub import RUN

NAME = "intake"


@pytest.fixture
def config(redis):
    """
    These need to write to Redis as others would, and to see that nothing is left.

    With a name of their own: the worker of the other files holds their delayed messages for a minute.
    """
    return {"ASOK_CELERY": {"broker_url": redis.url, "result_backend": redis.url}, "NAME": NAME}


def envelope(body=b"[[],{},{}]", **changes):
    """Return a message as kombu writes it, with changes; a value of None leaves a part out."""
    properties = {
        "delivery_tag": "a-tag",
        "delivery_mode": 2,
        "body_encoding": "base64",
        "delivery_info": {"exchange": "", "routing_key": f"{NAME}.default"},
        "priority": 0,
        "correlation_id": "1",
        **changes.pop("properties", {}),
    }
    headers = {"lang": "py", "task": RUN, "id": "1", "timelimit": [None, None], **changes.pop("headers", {})}
    made = {
        "body": base64.b64encode(body).decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {key: value for key, value in headers.items() if value != "left out"},
        "properties": {key: value for key, value in properties.items() if value != "left out"},
        **changes,
    }
    return json.dumps({key: value for key, value in made.items() if value != "left out"})


TEXTS = {
    "text": "hello",
    "bytes": b"\xff\xfe\x00",
    "empty": "",
    "null": "null",
    "number": "7",
    "list": "[1, 2]",
    "text in JSON": '"hello"',
    "object": "{}",
    "half an object": '{"body": "abc',
    "deep": "[" * 100_000,
    "huge": "x" * 20_000_000,
    "huge number": '{"properties": ' + "9" * 10_000 + "}",
    "properties are a list": json.dumps({"properties": []}),
    "no tag": envelope(properties={"delivery_tag": "left out"}),
    "tag is null": envelope(properties={"delivery_tag": None}),
    "tag is an object": envelope(properties={"delivery_tag": {}}),
    "no delivery_info": envelope(properties={"delivery_info": "left out"}),
    "delivery_info is text": envelope(properties={"delivery_info": "here"}),
    "broken base64": envelope() .replace(base64.b64encode(b"[[],{},{}]").decode(), "abc"),
    "unknown encoding of the body": envelope(properties={"body_encoding": "rot13"}),
    "body is a number": envelope() .replace('"' + base64.b64encode(b"[[],{},{}]").decode() + '"', "7"),
    "body is no JSON": envelope(b"hello"),
    "body is an object": envelope(b"{}"),
    "body is too short": envelope(b"[[]]"),
    "body is no list of lists": envelope(b"[1,2,3]"),
    "body is binary": envelope(b"\xff\x00"),
    "no headers": json.dumps({**json.loads(envelope()), "headers": None}),
    "headers are a list": json.dumps({**json.loads(envelope()), "headers": [1]}),
    "headers are text": json.dumps({**json.loads(envelope()), "headers": "task"}),
    "task is an object": envelope(headers={"task": {}}),
    "task is unknown": envelope(headers={"task": "shop.nothing"}),
    "no id": envelope(headers={"id": "left out"}),
    "id is a list": envelope(headers={"id": []}),
    "eta is text": envelope(headers={"eta": "tomorrow"}),
    "eta is an object": envelope(headers={"eta": {}}),
    "expires is an object": envelope(headers={"expires": {}}),
    "time limit is text": envelope(headers={"timelimit": ["soon", "now"]}),
    "time limit is a number": envelope(headers={"timelimit": 7}),
    "three time limits": envelope(headers={"timelimit": [1, 2, 3]}),
    "retries is text": envelope(headers={"retries": "many"}),
    "content type is unknown": json.dumps({**json.loads(envelope()), "content-type": "application/x-python-serialize"}),
    "content type is a list": json.dumps({**json.loads(envelope()), "content-type": []}),
    "encoding is unknown": json.dumps({**json.loads(envelope()), "content-encoding": "utf-99"}),
    "compression is unknown": envelope(headers={"compression": "application/x-nothing"}),
    "an older kind of message": json.dumps(
        {
            **json.loads(envelope(b'{"task": "flask_asok.run", "id": "1", "args": ["x"], "kwargs": {}}')),
            "headers": {},
        }
    ),
}  # fmt: skip


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_redis(ctx, worker, redis, wait_until, text):
    """Whatever is in a list of Redis costs one line of the log; the worker goes on, and keeps nothing of it."""
    lines = worker.log().count("\n")
    with redis_py.Redis(port=redis.port) as client:
        client.lpush(f"{NAME}.default", text)

        assert [background(jobs.add, n).result(20) for n in range(4)] == [0, 1, 2, 3]

        wait_until(lambda: client.hlen(f"asok:{NAME}:unacked") == 0, what="the acknowledgement")
    assert worker.process.poll() is None
    wait_until(lambda: worker.log().count("\n") > lines, what="the line")
    assert "Unrecoverable error" not in worker.log()


PUBLISHED = {
    "text": {"body": b"hello", "content_type": "text/plain"},
    "pickle": {
        "body": b"\x80\x05K\x07.",
        "content_type": "application/x-python-serialize",
        "content_encoding": "binary",
    },
    "unknown content type": {"body": b"{}", "content_type": "application/x-nothing"},
    "no content type": {"body": b"{}"},
    "unknown encoding": {"body": b"{}", "content_type": "application/json", "content_encoding": "utf-99"},
    "JSON of another shape": {"body": b"[1]", "content_type": "application/json", "content_encoding": "utf-8"},
    "binary": {"body": b"\xff\x00\xfe", "content_type": "application/json", "content_encoding": "utf-8"},
    "ours with another body": {"body": b"hello", "headers": {"task": RUN, "id": "1"}, "content_type": "text/plain"},
    "ours with wrong headers": {
        "body": b"[[],{},{}]",
        "headers": {"task": RUN, "id": 7, "timelimit": "soon"},
        "content_type": "application/json",
        "content_encoding": "utf-8",
    },
    "ours with pickle": {
        "body": b"\x80\x05K\x07.",
        "headers": {"task": RUN, "id": "1"},
        "content_type": "application/x-python-serialize",
        "content_encoding": "binary",
    },
    "unknown compression": {
        "body": b"[[],{},{}]",
        "headers": {"task": RUN, "id": "1", "compression": "application/x-nothing"},
        "content_type": "application/json",
        "content_encoding": "utf-8",
    },
    "nothing": {"body": b""},
}


@pytest.mark.parametrize("message", PUBLISHED.values(), ids=PUBLISHED)
def test_rabbitmq(rabbitmq, redis, close, start_shared, wait_until, message):
    """So does whatever others publish to a queue of RabbitMQ."""
    config = {"ASOK_CELERY": {"broker_url": rabbitmq.url, "result_backend": redis.url}}
    worker = start_shared(config)
    app = jobs.create_app(**config)
    with app.app_context(), kombu.Connection(rabbitmq.url) as connection:
        lines = worker.log().count("\n")
        connection.default_channel.basic_publish(
            connection.default_channel.prepare_message(
                message["body"], content_type=message.get("content_type"),
                content_encoding=message.get("content_encoding"), headers=message.get("headers", {}), properties={},
            ),
            routing_key="jobs.default",
        )  # fmt: skip

        assert [background(jobs.add, n).result(20) for n in range(4)] == [0, 1, 2, 3]

    close(app)
    assert worker.process.poll() is None
    wait_until(lambda: worker.log().count("\n") > lines, what="the line")
    assert "Unrecoverable error" not in worker.log()


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_other_pools(ctx, config, redis, start_worker, wait_until, pool):
    """It is so with Celery's other pools, whose main loop is another one."""
    worker = start_worker({**config, "NAME": pool}, "--pool", pool).ready()

    with redis_py.Redis(port=redis.port) as client:
        client.lpush(f"{pool}.default", "hello", "{}", envelope(headers={"timelimit": 7}))

        wait_until(lambda: worker.log().count("Refused a message") == 3, what="the refusals")
        assert client.llen(f"{pool}.default") == 0
    assert worker.process.poll() is None
