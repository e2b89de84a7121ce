"""Deliver webhooks: START HERE. `send_webhook` makes one attempt; `background()` up to five, or nine."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeGuard

from flask import Flask, current_app, has_app_context

from ...attempt import RunnableTask, running_task
from ...dispatch import task
from ...errors import QueueFull
from ...options import FunctionValues
from ...retries import NotYet, will_retry
from ...signals import emit
from ...state import KEY, AppState, state_of
from . import signing
from .delivery import Delivery
from .errors import WebhookError, WebhookGone, WebhookUnavailable
from .host_limits import Pool
from .outcome import with_request
from .rehearsal import rehearse
from .settings import DEFAULTS, is_suppressed
from .signals import delivered, webhook_failed, webhook_gone
from .unfinished import Unfinished, unfinished_of
from .webhook import DEFAULT_TIMEOUT, Webhook, compose

if TYPE_CHECKING:
    from .sender import Sender

BACKOFF = (5.0, 30.0, 120.0, 300.0)
"""Seconds before attempts 2 to 5: about eight minutes in all, because the process may end at any time."""
DURABLE_BACKOFF = (5.0, 30.0, 300.0, 1_800.0, 7_200.0, 14_400.0, 21_600.0, 36_000.0)
"""The same for attempts 2 to 9 of a webhook that survives its process: about a day in all."""
JITTER = 0.2


def backoff(attempt: int) -> float:
    """Return the seconds before `attempt`. Jitter only adds: a receiver that is down needs no less time."""
    return _wait(BACKOFF, attempt)


def durable_backoff(attempt: int) -> float:
    """Return the same for a durable webhook. Messages name this function."""
    return _wait(DURABLE_BACKOFF, attempt)


def _wait(schedule: tuple[float, ...], attempt: int) -> float:
    return schedule[min(attempt - 2, len(schedule) - 1)] * (1 + JITTER * random.random())


OPTIONS: Final[FunctionValues] = {
    "queue": "webhooks",
    "retries": len(BACKOFF),
    "retry_on": (WebhookUnavailable,),
    "backoff": backoff,
    "if_durable": {"retries": len(DURABLE_BACKOFF), "backoff": durable_backoff},
}


def prepare(*args: Any, **kwargs: Any) -> Webhook:
    """Check the arguments of `send_webhook` and make the bytes, in the thread that calls `background()`."""
    state = state_of(_app())
    distributed = state.backend.distributed
    webhook = compose(*args, know_names=not distributed, **kwargs)
    # Made before anything is queued: a shutdown may find a webhook that was never tried.
    unfinished, most = _unfinished(), state.config["ASOK_MAX_WAITING"]
    if len(unfinished) >= most:
        raise QueueFull(
            f"{most} webhooks wait for their receivers already (ASOK_MAX_WAITING); this one is not accepted."
        )
    return webhook


def deliver(webhook: Webhook) -> Delivery:
    """Make one attempt: what the task of `send_webhook` runs."""
    return _deliver(webhook, running_task(), suppress=is_suppressed())


# While it waits for its host, calls with its unique key get this very task.
deliver.__asok_begins__ = True  # type: ignore[attr-defined]


@task(**OPTIONS)
def deliver_queued_before(webhook: Webhook, _: None = None) -> Delivery:
    """
    Make one attempt for a task that the previous release queued, as `send_webhook(webhook, None)`.

    Workers find it by the old name of the task's function. To be removed with the next release.
    """
    return deliver(webhook)


@task(**OPTIONS, prepare=prepare, run=deliver)
def send_webhook(
    url: str,
    payload: Any,
    *,
    secret: signing.Secret | None = None,
    headers: Mapping[str, str] | None = None,
    id: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    allow_private: bool | str | Iterable[str] | None = None,
    reference: str | None = None,
) -> Delivery:
    """
    POST `payload` to `url`, once and now, and return the Delivery once the receiver has answered 2xx.

    `background(send_webhook, url, payload)` delivers after the page has answered, and tries up to five times within
    about eight minutes; if it is durable, up to nine times within about a day. The receiver may then
    get the webhook twice, and recognises it by its `webhook-id`.

    - `payload`: str and bytes are sent as they are, everything else as JSON (dates in ISO 8601, UUID and Decimal as
      strings, dataclasses as objects). The bytes are made at the call, so later changes to the payload are not sent.
    - `secret`: sign as Standard Webhooks specifies. A `whsec_...` secret or the name of an entry of
      `ASOK_WEBHOOK_SECRETS`; a list of them for a rotation, the newest first. None sends the webhook unsigned, which is
      what Slack expects.
    - `headers`: additional headers. The `Content-Type` is application/json unless they set another one.
    - `id`: the `webhook-id`, the same at every attempt; a random one when None.
    - `timeout`: seconds, 3,600 at most, for the whole attempt: from resolving the name to the last byte of the answer.
    - `allow_private`: hosts or networks to allow although they are not public, besides `ASOK_WEBHOOK_ALLOW`; True
      allows every private network and this machine, False not even those of `ASOK_WEBHOOK_ALLOW`.
    - `reference`: your own name for the endpoint. The Delivery has it; it is not sent.

    Outside an app context the defaults of the settings apply. Under `ASOK_WEBHOOK_SUPPRESS`, which defaults to
    `app.testing`, everything happens except the sending: the Delivery has no status.

    Raises TypeError or ValueError for an invalid argument, in the background already when `background()` is called;
    WebhookUnavailable if trying again may help: no connection, no answer in time, 408, 425, 429 or 5xx;
    WebhookRejected for any other answer (redirects are not followed), WebhookGone for a 410; WebhookBlocked if the
    address is not allowed, before anything is sent. Each has the Delivery as its `delivery`.
    """
    webhook = compose(
        url,
        payload,
        secret=secret,
        headers=headers,
        id=id,
        timeout=timeout,
        allow_private=allow_private,
        reference=reference,
    )
    # Some loggers print the variables of the frames in a traceback.
    del url, payload, secret, headers
    return deliver_once(webhook, suppress=is_suppressed())


def deliver_once(webhook: Webhook, *, suppress: bool) -> Delivery:
    """Make one attempt for a direct call, even inside a task: nothing tries again."""
    return _deliver(webhook, None, suppress=suppress)


def _deliver(webhook: Webhook, task: RunnableTask[Any] | None, *, suppress: bool) -> Delivery:
    """Make an attempt; `task` is the one that may make another, None for a direct call."""
    if _waits_here(task):
        _unfinished().begin(task, webhook)
    try:
        delivery = rehearse(webhook, _attempts(task)) if suppress else _attempt(webhook, task)
    except WebhookError as error:
        _fail(error, task)
    except NotYet:
        raise
    except BaseException as error:
        # The log shows it with the traceback.
        error.add_note(webhook.__asok_about__)
        raise
    if _waits_here(task):
        _unfinished().end(task)
    if delivered.receivers and has_app_context():
        emit(delivered, _app(), delivery=with_request(delivery, webhook))
    return delivery


def _attempt(webhook: Webhook, task: RunnableTask[Any] | None) -> Delivery:
    with _sender() as sender:
        return sender.attempt(
            webhook, _attempts(task), _pool(task), lambda: _begin(task), can_come_back=_waits_here(task)
        )


def _begin(task: RunnableTask[Any] | None) -> None:
    """Note that the attempt is made now, and not put off."""
    if _waits_here(task) and task.journal is not None:
        task.journal.free_at_start(task)


@contextlib.contextmanager
def _sender() -> Iterator[Sender]:
    """Give the application's sender, or outside an app context one for this attempt alone."""
    from .sender import Sender

    state = _state()
    if state is not None:
        yield state.shared("webhooks", lambda: Sender(state.config))
        return
    with contextlib.closing(Sender(DEFAULTS)) as sender:
        yield sender


def _fail(error: WebhookError, task: RunnableTask[Any] | None) -> NoReturn:
    """Raise `error`; send the signals if nothing will try again."""
    if task is not None and will_retry(task.options, task.attempts, error):
        if _waits_here(task):
            _unfinished().fail(task, error)
        raise error
    if _waits_here(task) and task.goes_on:
        # A shutdown could not wait for this attempt; another process makes it again.
        raise error
    # A shutdown that could not wait for this attempt has sent the signal already.
    told = _waits_here(task) and not _unfinished().end(task) and task.summary.state == "abandoned"
    if has_app_context() and not told:
        if isinstance(error, WebhookGone):
            emit(webhook_gone, _app(), delivery=error.delivery, error=error)
        emit(webhook_failed, _app(), delivery=error.delivery, error=error)
    raise error


def _attempts(task: RunnableTask[Any] | None) -> int:
    return 1 if task is None else task.attempts


def _waits_here(task: RunnableTask[Any] | None) -> TypeGuard[RunnableTask[Any]]:
    """Return True if `task` waits in this very process, where it holds no thread while it waits."""
    state = _state()
    return task is not None and state is not None and state.backend.in_process


def _pool(task: RunnableTask[Any] | None) -> Pool | None:
    """Return the threads that make this attempt, if other deliveries may need them."""
    size = state_of(_app()).backend.queues.get(task.queue) if _waits_here(task) else None
    return None if task is None or size is None else Pool(task.queue, size)


def _unfinished() -> Unfinished:
    return unfinished_of(_app())


def _state() -> AppState | None:
    return current_app.extensions.get(KEY) if has_app_context() else None


def _app() -> Flask:
    return current_app._get_current_object()  # type: ignore[attr-defined, no-any-return]
