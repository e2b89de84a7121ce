"""What is asked of PostgreSQL where an engine delivers the tasks: its rows are changed with ours, in one statement."""

from ...store.postgres import statements as records
from ...store.postgres.statements import LIVES, NOW, OF

RUN = "flask_asok.run"
"""
The one task that the engine knows, here and in `asok_insert_v1`. Its argument is the id of one of ours, whose record
has the signed message.
"""

LINE = "(CAST(%(lines)s AS text[]))[array_position(CAST(%(queues)s AS text[]), {queue})]"
"""The engine's name of a queue."""


def job(line: str, id: str) -> str:
    """Return an expression that inserts a row of the engine and is its number; its trigger notifies workers."""
    return (
        "(procrastinate_defer_jobs_v1(ARRAY[CAST(ROW("
        f"CAST({line} AS text), '{RUN}', 0, NULL, NULL, jsonb_build_object('id', {id}), NULL"
        ") AS procrastinate_job_to_defer_v1)]))[1]"
    )


MINE = "finished = 0 AND message IS NOT NULL AND queue = ANY(CAST(%(queues)s AS text[]))"

# For what the engine's triggers do in the same transaction: their plans live as long as the connection, and one that
# was made while there were few rows would read all of many. A pooler takes no setting of a connection, which would do.
BY_INDEX = "set_config('enable_seqscan', 'off', true) <> ''"

# A new row each time, and the one before is gone: whatever a worker that was taken for lost still does with its own
# row, it cannot touch the one of the worker that has the task now.
AGAIN = (
    "gone AS (DELETE FROM procrastinate_jobs j USING old WHERE j.id = old.job), "
    f"new AS (SELECT old.id, {job(LINE.format(queue='old.queue'), 'old.id')} AS job FROM old WHERE {BY_INDEX}) "
)

CALL = """%(app)s, %(id)s, %(name)s, %(queue)s, %(function)s, %(origin)s, %(enqueued)s, %(delay)s, %(scheduled)s,
    %(key)s, %(message)s, %(line)s, %(now)s"""

ENQUEUE = f"CALL asok_insert_v1({CALL})"
ENQUEUE_UNIQUE = f"SELECT asok_enqueue_v1({CALL})"
SEND = f"""
WITH old AS (
    SELECT id, queue, job FROM asok_tasks
    WHERE app = %(app)s AND id = %(id)s AND state = 'queued' AND {MINE} FOR UPDATE SKIP LOCKED
), {AGAIN}
UPDATE asok_tasks t SET job = new.job, sent = {NOW} FROM new WHERE t.id = new.id
"""
FETCH = """
SELECT job, line, task, args, attempt, signed FROM asok_fetch_v1(
    %(app)s, CAST(%(lines)s AS text[]), %(worker)s, %(owner)s, %(claim)s, CAST(%(now)s AS float8)
)
"""
# The claim need not be on the disk, unless the task is to run at most once: a crash of the server may repeat it. The
# end of the task is, and the claim with it. The message says so, which is JSON; an argument that looks like it only
# makes the claim slower. Its number is the caller's: who has not heard that it was written down can ask again.
BEGIN = f"""
UPDATE asok_tasks SET state = 'running', owner = %(owner)s, started = {NOW}, stopping = false, progress = NULL,
    attempts = attempts + CASE WHEN state = 'running' THEN 0 ELSE 1 END, claim = %(claim)s,
    key = CASE WHEN wanted_key <> '' THEN wanted_key ELSE key END, wanted_key = ''
WHERE {OF} AND (state = 'queued' OR state = 'waiting' AND due <= {NOW} OR state = 'running' AND claim = %(claim)s)
    AND message IS NOT NULL
    AND set_config('synchronous_commit', CASE WHEN message LIKE '%%"once":true%%' THEN 'on' ELSE 'off' END, true) <> ''
RETURNING attempts, message
"""
PUT_BACK = f"""
UPDATE asok_tasks SET state = 'queued', owner = '', attempts = attempts - 1
WHERE {OF} AND claim = %(claim)s AND state = 'running'
"""


def _with_job(change: str) -> str:
    return f"""
WITH task AS ({change} RETURNING job),
gone AS (DELETE FROM procrastinate_jobs WHERE id = (SELECT job FROM task) AND {BY_INDEX})
SELECT 1 FROM task
"""


# With the end of an attempt its row is gone, in the same transaction.
SETTLE = _with_job(records.SETTLE)
POSTPONE = _with_job(records.POSTPONE)
REFUSE = f"""
WITH old AS (SELECT id, message FROM asok_tasks WHERE {OF} AND state IN ('queued', 'waiting') FOR UPDATE)
UPDATE asok_tasks t SET state = 'cancelled', finished = {NOW}, error = %(error)s, key = '', wanted_key = '',
    message = NULL
FROM old WHERE t.id = old.id RETURNING old.message
"""
LEFT_LONG = f"old.since > 0 AND {NOW} - old.since >= %(seconds)s"
LEAVE = f"""
WITH old AS (
    SELECT id, left_at AS since FROM asok_tasks WHERE {OF} AND state IN ('queued', 'waiting') FOR UPDATE
)
UPDATE asok_tasks t SET error = %(error)s,
    left_at = CASE WHEN old.since > 0 THEN old.since ELSE {NOW} END,
    state = CASE WHEN {LEFT_LONG} THEN 'failed' ELSE state END,
    finished = CASE WHEN {LEFT_LONG} THEN {NOW} ELSE 0 END,
    key = CASE WHEN {LEFT_LONG} THEN '' ELSE key END,
    wanted_key = CASE WHEN {LEFT_LONG} THEN '' ELSE wanted_key END
FROM old WHERE t.id = old.id
RETURNING CASE WHEN t.finished > 0 THEN 2 WHEN old.since = 0 THEN 1 ELSE 0 END
"""
TAKE_BACK = f"""
WITH old AS (
    SELECT id, queue, job FROM asok_tasks
    WHERE {OF} AND claim = %(claim)s AND owner = %(owner)s AND state = 'running' AND {MINE} FOR UPDATE
), {AGAIN}
UPDATE asok_tasks t SET state = 'queued', owner = '', attempts = attempts - 1, deaths = deaths + %(deaths)s,
    claim = claim + 1, job = new.job, sent = {NOW}, left_at = 0
FROM new WHERE t.id = new.id RETURNING claim
"""
# It stays running, for a process that ends it: nobody else may begin it meanwhile.
TAKE_OVER = f"""
UPDATE asok_tasks SET owner = %(me)s, attempts = attempts - 1, deaths = deaths + 1, claim = claim + 1
WHERE {OF} AND claim = %(claim)s AND owner = %(owner)s AND state = 'running' RETURNING claim
"""
# In a SELECT of its own, the time is one value, which an index can be searched for.
DUE = f"""
WITH old AS (
    SELECT id, queue, job FROM asok_tasks WHERE app = %(app)s AND state = 'waiting' AND due <= (SELECT {NOW}) AND {MINE}
    ORDER BY due LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), {AGAIN}
UPDATE asok_tasks t SET state = 'queued', job = new.job, sent = {NOW} FROM new WHERE t.id = new.id
"""
WORKS = "w.last_heartbeat > clock_timestamp() - make_interval(secs => %(lease)s)"

# A worker had taken the row, and was lost before it began the task.
LOST = f"""
WITH old AS (
    SELECT t.id, t.queue, t.job FROM procrastinate_workers w
    JOIN procrastinate_jobs j ON j.worker_id = w.id AND j.status = 'doing'
    JOIN asok_tasks t ON t.id = j.args ->> 'id' AND t.job = j.id
    WHERE NOT {WORKS} AND t.app = %(app)s AND t.state = 'queued' AND {MINE} LIMIT %(limit)s FOR UPDATE OF t SKIP LOCKED
), {AGAIN}
UPDATE asok_tasks t SET job = new.job, sent = {NOW} FROM new WHERE t.id = new.id
"""
# Its row is gone for whatever reason: a table was emptied, a worker could not run it, another program took it.
DROPPED = f"""
WITH old AS (
    SELECT id, queue, job FROM asok_tasks t
    WHERE app = %(app)s AND state = 'queued' AND sent < {NOW} - %(seconds)s AND {MINE} AND NOT EXISTS (
        SELECT 1 FROM procrastinate_jobs j WHERE j.id = t.job AND (j.status = 'todo' OR j.status = 'doing' AND EXISTS (
            SELECT 1 FROM procrastinate_workers w WHERE w.id = j.worker_id AND {WORKS}
        ))
    ) LIMIT %(limit)s FOR UPDATE OF t SKIP LOCKED
), {AGAIN}
UPDATE asok_tasks t SET job = new.job, sent = {NOW} FROM new WHERE t.id = new.id
"""
# What this process has claimed without knowing of it, since an answer was lost, is nobody's either.
ORPHANS = f"""
app = %(app)s AND state = 'running' AND {MINE}
AND (NOT {LIVES} OR owner = %(me)s AND claim <> ALL(CAST(%(claims)s AS bigint[]))) LIMIT %(limit)s
"""

# Rows that lost workers have left and no task needs any more, and those workers themselves.
SWEEP = f"""
WITH gone AS (
    DELETE FROM procrastinate_jobs j WHERE j.status = 'doing' AND j.task_name = '{RUN}'
        AND j.queue_name = ANY(CAST(%(lines)s AS text[]))
        AND NOT EXISTS (SELECT 1 FROM procrastinate_workers w WHERE w.id = j.worker_id AND {WORKS})
        AND NOT EXISTS (
            SELECT 1 FROM asok_tasks t WHERE t.id = j.args ->> 'id' AND t.job = j.id AND t.finished = 0
        )
)
DELETE FROM procrastinate_workers w WHERE w.last_heartbeat < clock_timestamp() - make_interval(secs => %(lease)s * 60)
"""
PROBE = """
INSERT INTO asok_about (app, name, value) VALUES (%(app)s, 'probe', %(value)s)
ON CONFLICT (app, name) DO UPDATE SET value = excluded.value WHERE asok_about.value = %(replaces)s
"""
READ_PROBE = "SELECT value FROM asok_about WHERE app = %(app)s AND name = 'probe'"
COUNTS = f"""
SELECT queue, count(*) FILTER (WHERE state = 'queued'), count(*) FILTER (WHERE state = 'waiting'),
    coalesce({NOW} - min(due) FILTER (WHERE state = 'queued'), 0)
FROM asok_tasks WHERE app = %(app)s AND finished = 0 AND message IS NOT NULL GROUP BY queue
"""
CHECK = "SELECT CAST('asok_fetch_v1' AS regproc) FROM asok_tasks, procrastinate_workers LIMIT 0"
