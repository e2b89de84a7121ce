-- What Flask-Asok keeps in PostgreSQL. Each statement may be run again, and does nothing then. What another release
-- would not understand gets another name.

CREATE TABLE IF NOT EXISTS asok_tasks (
    id text COLLATE "C" PRIMARY KEY,
    app text NOT NULL,
    name text NOT NULL,
    queue text NOT NULL,
    function text NOT NULL DEFAULT '',
    origin text NOT NULL DEFAULT '',
    state text NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    enqueued double precision NOT NULL,
    due double precision NOT NULL DEFAULT 0,
    scheduled double precision NOT NULL DEFAULT 0,
    started double precision NOT NULL DEFAULT 0,
    finished double precision NOT NULL DEFAULT 0,
    owner text NOT NULL DEFAULT '',
    claim bigint NOT NULL DEFAULT 0,
    deaths integer NOT NULL DEFAULT 0,
    key text NOT NULL DEFAULT '',
    unique_key text NOT NULL DEFAULT '',
    stopping boolean NOT NULL DEFAULT false,
    progress text,
    error text NOT NULL DEFAULT '',
    traceback text NOT NULL DEFAULT '',
    outcome text,
    message text,
    history text NOT NULL DEFAULT '',
    -- The key that the first claim takes: of a task that was enqueued in a transaction of the application, where to
    -- take it would wait for every other transaction that wants it.
    wanted_key text NOT NULL DEFAULT '',
    -- The engine's row that carries the task to a worker, and when it was inserted.
    job bigint,
    sent double precision NOT NULL DEFAULT 0,
    -- When the first worker could not run it.
    left_at double precision NOT NULL DEFAULT 0
);

CREATE UNIQUE INDEX IF NOT EXISTS asok_tasks_key ON asok_tasks (app, key) WHERE key <> '';
CREATE INDEX IF NOT EXISTS asok_tasks_wanted_key ON asok_tasks (app, wanted_key) WHERE wanted_key <> '';
CREATE INDEX IF NOT EXISTS asok_tasks_open ON asok_tasks (app, state, due) WHERE finished = 0;
CREATE INDEX IF NOT EXISTS asok_tasks_lost ON asok_tasks (app, owner) WHERE finished = 0 AND message IS NULL;
CREATE INDEX IF NOT EXISTS asok_tasks_finished ON asok_tasks (app, finished) WHERE finished > 0;

CREATE TABLE IF NOT EXISTS asok_processes (
    token text PRIMARY KEY,
    app text NOT NULL,
    host text NOT NULL,
    pid bigint NOT NULL,
    kind text NOT NULL,
    since double precision NOT NULL,
    queues text NOT NULL,
    seen timestamp with time zone NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE IF NOT EXISTS asok_ticks (
    app text NOT NULL,
    name text NOT NULL,
    at double precision NOT NULL,
    task_id text NOT NULL DEFAULT '',
    PRIMARY KEY (app, name)
);

CREATE TABLE IF NOT EXISTS asok_about (
    app text NOT NULL,
    name text NOT NULL,
    value text NOT NULL,
    PRIMARY KEY (app, name)
);

-- A call, enqueued: a worker gets it with the commit, or in `_delay` seconds. As procedures and functions they are planned
-- once for each connection, and not for each call. Without sequential scans: a plan that was made while a table was empty
-- would read all of it, to check a foreign key for instance, for as long as the connection lives. This one returns
-- nothing: to read a row takes the caller as long as half of the rest.
CREATE OR REPLACE PROCEDURE asok_insert_v1(
    _app text, _id text, _name text, _queue text, _function text, _origin text, _enqueued double precision,
    _delay double precision, _scheduled double precision, _key text, _message text, _line text, _now double precision
) LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    _job bigint;
BEGIN
    IF _now IS NULL THEN
        _now := extract(epoch FROM clock_timestamp());
    END IF;
    IF _delay = 0 THEN
        _job := (procrastinate_defer_jobs_v1(ARRAY[CAST(
            ROW(_line, 'flask_asok.run', 0, NULL, NULL, jsonb_build_object('id', _id), NULL)
            AS procrastinate_job_to_defer_v1
        )]))[1];
    END IF;
    INSERT INTO asok_tasks (app, id, name, queue, function, origin, state, enqueued, due, scheduled, unique_key,
        wanted_key, message, job, sent)
    VALUES (_app, _id, _name, _queue, _function, _origin, CASE WHEN _delay = 0 THEN 'queued' ELSE 'waiting' END,
        _enqueued, _now + _delay, _scheduled, _key, _key, _message, _job, _now);
END;
$$;

-- The same for a call with a key. Returns its id, or the id of the task that has the key: then nothing is enqueued.
CREATE OR REPLACE FUNCTION asok_enqueue_v1(
    _app text, _id text, _name text, _queue text, _function text, _origin text, _enqueued double precision,
    _delay double precision, _scheduled double precision, _key text, _message text, _line text, _now double precision
) RETURNS text LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    _holder text;
BEGIN
    -- A snapshot of the transaction's beginning may show a task that has ended since. There the first claim decides.
    IF current_setting('transaction_isolation') = 'read committed' THEN
        SELECT id INTO _holder FROM asok_tasks WHERE app = _app AND (key = _key OR wanted_key = _key) LIMIT 1;
        IF FOUND THEN
            RETURN _holder;
        END IF;
    END IF;
    CALL asok_insert_v1(
        _app, _id, _name, _queue, _function, _origin, _enqueued, _delay, _scheduled, _key, _message, _line, _now
    );
    RETURN _id;
END;
$$;

-- What a worker has next: the engine's function fetches a row, and the attempt of its task is claimed in the same step.
-- `attempt` is null where the worker is to claim it by itself: another transaction has the record, the task may not run,
-- its key is to be taken first, or it is to run at most once, so that nobody may give up a claim; or `_owner` is "".
CREATE OR REPLACE FUNCTION asok_fetch_v1(
    _app text, _lines text[], _worker bigint, _owner text, _claim bigint, _now double precision,
    OUT job bigint, OUT line text, OUT task text, OUT args jsonb, OUT attempt integer, OUT signed text
) LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
    -- It need not be on the disk: the end of the attempt is, and a crash of the server may repeat what has not ended.
    PERFORM set_config('synchronous_commit', 'off', true);
    SELECT f.id, f.queue_name, f.task_name, f.args INTO job, line, task, args
    FROM procrastinate_fetch_job_v2(_lines, _worker) f;
    IF job IS NULL OR task <> 'flask_asok.run' OR _owner = '' THEN
        RETURN;
    END IF;
    IF _now IS NULL THEN
        _now := extract(epoch FROM clock_timestamp());
    END IF;
    UPDATE asok_tasks t SET state = 'running', owner = _owner, started = _now, stopping = false, progress = NULL,
        attempts = t.attempts + 1, claim = _claim
    FROM (
        SELECT o.id FROM asok_tasks o
        WHERE o.app = _app AND o.id = args ->> 'id' AND (o.state = 'queued' OR o.state = 'waiting' AND o.due <= _now)
            AND o.wanted_key = '' AND o.message IS NOT NULL AND o.message NOT LIKE '%"once":true%'
            -- Of a forged record: one that cannot be claimed must not keep the others of its queue from being fetched.
            AND o.attempts BETWEEN 0 AND 1000000000
        FOR UPDATE SKIP LOCKED
    ) found
    WHERE t.id = found.id RETURNING t.attempts, t.message INTO attempt, signed;
END;
$$;
