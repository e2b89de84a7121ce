"""A Redis of the tests' own."""

import os
import shutil
import socket
import subprocess

import pytest
import redis


@pytest.fixture(scope="session")
def redis_port(tmp_path_factory):
    """The port of a Redis for all tests of this folder."""
    if shutil.which("redis-server") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("redis-server is not installed.")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("redis")
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    with redis.Redis(port=port, retry=redis.retry.Retry(redis.backoff.ConstantBackoff(0.1), 100)) as client:
        client.ping()
    yield port
    server.terminate()
    server.wait(10)
