"""The permissions that the page asks for are enough, and no keys beyond them are touched."""

import json
import re
from pathlib import Path

import jobs
import pytest
import redis as redis_py

from flask_asok import background

PAGE = Path(__file__).parents[2] / "docs/celery.md"


@pytest.mark.parametrize("settings", [["broker_url"], ["broker_url", "result_backend"]])
def test_limited_user(own_redis, start_worker, close, wait_until, settings):
    """The users of the page, for all in one Redis or for records in one of their own, run web and worker."""
    with redis_py.Redis(port=own_redis.port) as redis:
        for command in re.findall(r"^> (ACL SETUSER .*)$", PAGE.read_text(), re.MULTILINE):
            redis.execute_command(*command.split())
    users = {"broker_url": "shop", "result_backend": "records"}
    urls = {key: f"redis://{users[key]}:a-password@127.0.0.1:{own_redis.port}/0" for key in settings}
    config = {"NAME": "shop", "ASOK_CELERY": urls}
    start_worker(config, "--concurrency", "1").ready()
    app = jobs.create_app(**config)

    with app.app_context():
        task = background.using(retries=1, backoff=0.1)(jobs.close_shop, "now")
        assert isinstance(task.exception(20), jobs.ShopClosed)
        assert background(jobs.add, 1).result(20) == 1

    def workers():
        return json.loads(app.test_cli_runner().invoke(args=["asok", "status", "--json"]).stdout)["workers"]

    # A busy one may not answer within the second that it has.
    assert len(wait_until(workers, what="the answer of the worker")) == 1
    with redis_py.Redis(port=own_redis.port, decode_responses=True) as redis:
        assert [(entry["reason"], entry["object"]) for entry in redis.acl_log()] == []
    close(app)
