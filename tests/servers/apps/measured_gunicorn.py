"""gunicorn's configuration, as docs/telemetry.md has it."""

from prometheus_client import multiprocess


def child_exit(server, worker):
    multiprocess.mark_process_dead(worker.pid)
