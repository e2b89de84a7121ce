"""What the store asks of PostgreSQL."""

# Each change is one statement, which is one transaction. Every time is the server's, except in tests, which set `now`.
NOW = "coalesce(CAST(%(now)s AS float8), CAST(extract(epoch FROM clock_timestamp()) AS float8))"

OF = "app = %(app)s AND id = %(id)s"

LIVES = """EXISTS (
    SELECT 1 FROM asok_processes p
    WHERE p.token = t.owner AND p.seen > clock_timestamp() - make_interval(secs => %(lease)s)
)"""

INSERT = """
INSERT INTO asok_tasks (app, {columns}) SELECT %(app)s, {values}
WHERE %(key)s = '' OR NOT EXISTS (SELECT 1 FROM asok_tasks WHERE app = %(app)s AND wanted_key = %(key)s)
ON CONFLICT (app, key) WHERE key <> '' DO NOTHING
"""
HOLDER = f"""
SELECT id, claim, message IS NOT NULL OR {LIVES} FROM asok_tasks t
WHERE app = %(app)s AND (key = %(key)s OR wanted_key = %(key)s) AND %(key)s <> '' ORDER BY key = '' LIMIT 1
"""
CLAIM = f"""
UPDATE asok_tasks SET state = 'running', attempts = attempts + 1, claim = claim + 1, owner = %(owner)s,
    started = {NOW}, stopping = false, progress = NULL
WHERE {OF} AND claim = coalesce(CAST(%(after)s AS bigint), claim) AND state IN ('queued', 'waiting')
RETURNING claim
"""
REPORT = f"""
UPDATE asok_tasks SET progress = %(progress)s WHERE {OF} AND claim = %(claim)s AND state = 'running'
RETURNING stopping
"""
DUE = f"CASE WHEN CAST(%(delay)s AS float8) IS NULL THEN CAST(%(due)s AS float8) ELSE {NOW} + %(delay)s END"
RELEASE = f"""
UPDATE asok_tasks SET state = CASE WHEN {DUE} > {NOW} THEN 'waiting' ELSE 'queued' END, due = {DUE}, key = %(key)s,
    unique_key = %(key)s, message = %(message)s
WHERE {OF} AND state = 'waiting'
    AND (%(key)s = '' OR NOT EXISTS (SELECT 1 FROM asok_tasks WHERE app = %(app)s AND wanted_key = %(key)s))
"""
POSTPONE = f"""
UPDATE asok_tasks SET state = 'waiting', due = {DUE}, attempts = %(attempts)s, error = %(error)s,
    traceback = %(traceback)s, left_at = 0,
    history = right(
        history || CAST(started AS numeric(20, 6)) || ' ' || CAST({NOW} AS numeric(20, 6)) || ' ' || %(told)s
            || chr(10),
        %(longest)s)
WHERE {OF} AND claim = %(claim)s AND state = 'running'
"""
SETTLE = f"""
UPDATE asok_tasks SET state = %(state)s, finished = {NOW}, error = %(error)s, traceback = %(traceback)s,
    outcome = %(outcome)s, key = '', wanted_key = '',
    message = CASE WHEN %(state)s IN ('succeeded', 'cancelled') THEN NULL ELSE message END
WHERE {OF} AND claim = %(claim)s AND finished = 0
"""
LOSE = f"""
UPDATE asok_tasks t SET state = 'abandoned', finished = {NOW}, error = %(error)s, traceback = '', key = '',
    wanted_key = ''
WHERE app = %(app)s AND finished = 0 AND message IS NULL AND NOT {LIVES}
"""
CANCEL = f"""
UPDATE asok_tasks SET state = 'cancelled', finished = {NOW}, key = '', wanted_key = '', message = NULL
WHERE {OF} AND state IN ('queued', 'waiting')
"""
STOP = f"UPDATE asok_tasks SET stopping = true WHERE {OF} AND state = 'running'"
RETRY = f"""
UPDATE asok_tasks SET state = 'queued', attempts = 0, deaths = 0, claim = claim + 1, due = {NOW}, owner = '',
    finished = 0, error = '', traceback = '', history = '', outcome = NULL, key = unique_key, left_at = 0, sent = {NOW}
WHERE {OF} AND state IN ('failed', 'abandoned') AND message IS NOT NULL
    AND (unique_key = '' OR NOT EXISTS (
        SELECT 1 FROM asok_tasks o WHERE o.app = %(app)s AND o.wanted_key = asok_tasks.unique_key))
"""
DISCARD = f"DELETE FROM asok_tasks WHERE {OF} AND finished > 0"
FREE = f"UPDATE asok_tasks SET key = '', wanted_key = '' WHERE {OF}"
EXPIRE = f"""
DELETE FROM asok_tasks WHERE id IN (
    SELECT id FROM asok_tasks WHERE app = %(app)s AND finished > 0 AND finished < (SELECT {NOW} - %(keep)s)
    ORDER BY finished LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
"""
QUEUES = """
SELECT queue, state, count(*), min(CASE WHEN due > 0 THEN due ELSE enqueued END) FROM asok_tasks
WHERE app = %(app)s AND finished = 0 GROUP BY queue, state ORDER BY queue
"""
ENDED = """
SELECT name, queue, state, started, finished FROM asok_tasks
WHERE app = %(app)s AND finished > 0 AND finished > %(since)s ORDER BY finished DESC LIMIT %(limit)s
"""
COUNT_ENDED = """
SELECT state, floor((finished - %(since)s) / %(seconds)s) AS period, count(*) FROM asok_tasks
WHERE app = %(app)s AND finished > 0 AND finished > %(since)s AND finished < %(latest)s GROUP BY state, period
"""
ENTER = """
INSERT INTO asok_processes (app, token, host, pid, kind, since, queues)
VALUES (%(app)s, %(token)s, %(host)s, %(pid)s, %(kind)s, %(since)s, %(queues)s)
ON CONFLICT (token) DO UPDATE SET kind = excluded.kind, queues = excluded.queues, seen = clock_timestamp()
"""
IS_ALIVE = """
SELECT 1 FROM asok_processes
WHERE app = %(app)s AND token = %(token)s AND seen > clock_timestamp() - make_interval(secs => %(lease)s)
"""
PROCESSES = """
SELECT token, host, pid, kind, since, queues FROM asok_processes
WHERE app = %(app)s AND kind <> %(command)s AND seen > clock_timestamp() - make_interval(secs => %(lease)s)
ORDER BY since
"""
BURY = """
DELETE FROM asok_processes WHERE app = %(app)s AND seen < clock_timestamp() - make_interval(secs => %(lease)s * 60)
"""
LEAVE = "DELETE FROM asok_processes WHERE token = %(token)s"
TAKE_TICK = """
INSERT INTO asok_ticks (app, name, at, task_id) VALUES (%(app)s, %(name)s, %(at)s, %(task_id)s)
ON CONFLICT (app, name) DO UPDATE SET at = excluded.at, task_id = excluded.task_id WHERE asok_ticks.at < excluded.at
"""
TICK = "SELECT at, task_id FROM asok_ticks WHERE app = %(app)s AND name = %(name)s"
FIRST_TICK = """
INSERT INTO asok_ticks (app, name, at, task_id) VALUES (%(app)s, %(name)s, %(at)s, %(task_id)s) ON CONFLICT DO NOTHING
"""
REPLACE_TICK = """
UPDATE asok_ticks SET at = %(at)s, task_id = %(task_id)s
WHERE app = %(app)s AND name = %(name)s AND at = %(old_at)s AND task_id = %(old_id)s
"""
