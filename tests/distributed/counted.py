"""What Prometheus reads off a worker of these tests, whichever engine it works for."""

import urllib.request

import jobs

from flask_asok import background

WAIT = 30

SETTLED = 'asok_tasks_total{{outcome="{}",queue="default",task="jobs.{}"}}'


def assert_counted(app, port, wait_until):
    """Run tasks on the worker that serves its metrics on `port`, leave one in another queue, and see them counted."""
    with app.app_context():
        tasks = [background(jobs.add, number) for number in range(20)]
        failed = background.using(retries=1, backoff=0.1)(jobs.close_shop, "now")
        for task in (*tasks, failed):
            task.join(WAIT)
        background.using(queue="mail")(jobs.add, 1)

    def scraped():
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=WAIT) as answer:
            text = answer.read().decode()
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line[0] != "#"}

    counts = {
        SETTLED.format("failed", "close_shop"): 1,
        SETTLED.format("succeeded", "add"): 20,
        'asok_task_retries_total{queue="default",task="jobs.close_shop"}': 1,
        'asok_queue_latency_seconds_count{queue="default"}': 22,
        'asok_queue_tasks{queue="mail",state="queued"}': 1,
        'asok_queue_tasks{queue="default",state="queued"}': 0,
    }

    # Several processes, and the database, tell of them; not all at the same moment.
    wait_until(lambda: counts.items() <= scraped().items(), what="the counts")
