"""What the store asks of SQLite."""

# Each change is one statement, which is one transaction: nothing else can happen in between, least of all a switch of
# greenlets, and no process can end while it holds the file's lock for longer than that.
CLAIM = """
UPDATE task SET state = 'running', attempts = attempts + 1, claim = claim + 1, owner = ?, started = ?, stopping = 0,
    progress = NULL
WHERE id = ? AND claim = coalesce(?, claim) AND state IN ('queued', 'waiting')
"""
# Without a new owner no index changes, which makes it a third quicker: the process runs its own task, as most do.
CLAIM_OWN = """
UPDATE task SET state = 'running', attempts = attempts + 1, claim = claim + 1, started = ?, stopping = 0,
    progress = NULL
WHERE id = ? AND claim = ? AND owner = ? AND state IN ('queued', 'waiting')
"""
REPORT = "UPDATE task SET progress = ? WHERE id = ? AND claim = ? AND state = 'running'"
RELEASE = """
UPDATE OR IGNORE task SET state = CASE WHEN ? > ? THEN 'waiting' ELSE 'queued' END, due = ?, key = ?, unique_key = ?,
    message = ?
WHERE id = ? AND state = 'waiting'
"""
POSTPONE = """
UPDATE task SET state = 'waiting', due = ?, attempts = ?, error = ?, traceback = ?,
    history = substr(history || printf('%.6f %.6f ', started, ?) || ? || char(10), ?)
WHERE id = ? AND claim = ? AND state = 'running'
"""
SETTLE = """
UPDATE task SET state = ?, finished = ?, error = ?, traceback = ?, outcome = ?, key = '',
    message = CASE WHEN ? IN ('succeeded', 'cancelled') THEN NULL ELSE message END
WHERE id = ? AND claim = ? AND finished = 0
"""
LOSE = """
UPDATE task SET state = 'abandoned', finished = ?, error = ?, traceback = '', key = ''
WHERE id IN (SELECT id FROM task WHERE owner = ? AND finished = 0 AND message IS NULL LIMIT ?)
"""
CANCEL = """
UPDATE task SET state = 'cancelled', finished = ?, key = '', message = NULL
WHERE id = ? AND state IN ('queued', 'waiting')
"""
RETRY = """
UPDATE OR IGNORE task SET state = 'queued', attempts = 0, deaths = 0, claim = claim + 1, due = ?, owner = '',
    finished = 0, error = '', traceback = '', history = '', outcome = NULL, stopping = 0, key = unique_key
WHERE id = ? AND state IN ('failed', 'abandoned') AND message IS NOT NULL
"""
EXPIRE = """
DELETE FROM task WHERE id IN (SELECT id FROM task WHERE finished > 0 AND finished < ? LIMIT ?)
"""
QUEUES = """
SELECT queue, state, count(*), min(due) FROM task WHERE finished = 0 AND state IN ('queued', 'running', 'waiting')
GROUP BY queue, state ORDER BY queue
"""
# An id begins with the time of the call.
IN_ORDER = "ORDER BY id DESC LIMIT ?"
ENDED = """
SELECT name, queue, state, started, finished FROM task WHERE finished > 0 AND finished > ?
ORDER BY finished DESC LIMIT ?
"""
COUNT_ENDED = """
SELECT state, CAST((finished - ?) / ? AS INTEGER) AS period, count(*) FROM task
WHERE finished > 0 AND finished > ? AND finished < ? GROUP BY state, period
"""
TAKE_TICK = """
INSERT INTO tick (name, at, task_id) VALUES (?, ?, ?)
ON CONFLICT (name) DO UPDATE SET at = excluded.at, task_id = excluded.task_id WHERE tick.at < excluded.at
"""
FIRST_TICK = "INSERT OR IGNORE INTO tick (at, task_id, name) VALUES (?, ?, ?)"
REPLACE_TICK = "UPDATE tick SET at = ?, task_id = ? WHERE name = ? AND at = ? AND task_id = ?"

# Of each owner that has any the name, by one step in the index for each: there may be many tasks.
OWNERS = """
WITH RECURSIVE found (owner) AS (
    SELECT min(owner) FROM task WHERE finished = 0
    UNION ALL
    SELECT (SELECT min(owner) FROM task WHERE finished = 0 AND owner > found.owner) FROM found
    WHERE found.owner IS NOT NULL
)
SELECT owner FROM found WHERE owner IS NOT NULL
"""
ORPHANS = "WHERE owner = ? AND finished = 0 AND due <= ? AND queue = ? AND message IS NOT NULL ORDER BY due LIMIT ?"
TAKE_OVER = """
UPDATE task SET owner = ?, claim = claim + 1, attempts = attempts - (state = 'running'),
    deaths = deaths + (state = 'running'), state = 'queued', stopping = 0
WHERE id = ? AND claim = ? AND owner = ? AND finished = 0
"""
HAND_OVER = """
UPDATE task SET state = 'queued', attempts = attempts - 1, claim = claim + 1
WHERE id = ? AND claim = ? AND state = 'running'
"""
GIVE_UP = "UPDATE task SET owner = '' WHERE id = ? AND claim = ? AND state IN ('queued', 'waiting')"
PROBE = """
INSERT INTO about (name, value) VALUES ('probe', ?)
ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE value = ?
"""

# The columns by their names: a later release may have added some.
ENTER = "INSERT OR REPLACE INTO process (token, host, pid, kind, since, queues) VALUES (?, ?, ?, ?, ?, ?)"
PROCESSES = "SELECT token, host, pid, kind, since, queues FROM process ORDER BY since"
