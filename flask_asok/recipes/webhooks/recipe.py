"""The recipe: `send_webhook` makes one attempt; run by `background()` it is tried again by a policy of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import random
from collections.abc import Iterable, Iterator, Mapping
from time import perf_counter, time
from typing import TYPE_CHECKING, Any, NoReturn, TypeGuard, TypeVar

from flask import Flask, current_app, has_app_context

from ... import signals
from ...attempt import RunnableTask, running_task
from ...dispatch import task
from ...errors import QueueFull, WebhookBlocked, WebhookError, WebhookGone, WebhookUnavailable
from ...logs import log
from ...retries import NotYet, Retry, wait_before
from ...state import KEY, State, state_of
from . import signing
from .address import Policy, Url, in_figures, parse
from .deadline import Deadline
from .delivery import Delivery, delivery_of, lost, refusal
from .host_limits import LONGEST_LINE, Pool
from .recording import delivered
from .settings import DEFAULTS
from .unfinished import Unfinished
from .webhook import Webhook, compose, policy_for, signed_headers

if TYPE_CHECKING:
    from .sender import Sender

E = TypeVar("E", bound=BaseException)

BACKOFF = (5.0, 30.0, 120.0, 300.0)
"""Seconds before attempts 2 to 5: some eight minutes in all, for a process that may end at any time."""
JITTER = 0.2


def backoff(attempt: int) -> float:
    """Return the seconds before `attempt`; jitter only adds, for a receiver that is down wants no less."""
    return BACKOFF[min(attempt - 2, len(BACKOFF) - 1)] * (1 + JITTER * random.random())


def prepare(
    url: str,
    payload: Any,
    *,
    secret: signing.Secret | None = None,
    headers: Mapping[str, str] | None = None,
    id: str | None = None,
    timeout: float = 15,
    allow_private: bool | str | Iterable[str] | None = None,
    reference: str | None = None,
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Check the arguments of `send_webhook` and freeze its bytes, in the thread that calls `background()`."""
    if _is_distributed() and any(map(signing.is_literal, signing.listed(secret))):
        raise ValueError(
            "A secret must not travel to another process. "
            "Put it into ASOK_WEBHOOK_SECRETS, there as well, and pass the name of its entry."
        )
    webhook = _compose(
        url, payload, secret, headers, id, timeout, allow_private, reference, know_names=not _is_distributed()
    )
    # There before anything is queued: a shutdown may find it untried.
    unfinished, most = _unfinished(), state_of(_app()).config["ASOK_MAX_WAITING"]
    if len(unfinished) >= most:
        raise QueueFull(
            f"{most} webhooks wait for their receivers already (ASOK_MAX_WAITING); this one is not accepted."
        )
    return (webhook, None), {}


@task(queue="webhooks", retries=len(BACKOFF), retry_on=(WebhookUnavailable,), backoff=backoff, prepare=prepare)
def send_webhook(
    url: str,
    payload: Any,
    *,
    secret: signing.Secret | None = None,
    headers: Mapping[str, str] | None = None,
    id: str | None = None,
    timeout: float = 15,
    allow_private: bool | str | Iterable[str] | None = None,
    reference: str | None = None,
) -> Delivery:
    """
    POST `payload` to `url`, once and now, and return the Delivery once the receiver has answered 2xx.

    `background(send_webhook, url, payload)` delivers after the page has answered, and tries up to five times within
    some eight minutes. The receiver may then get it twice: it knows it by its `webhook-id`.

    - `payload`: str and bytes are sent as they are, everything else as JSON (dates in ISO 8601, UUID and Decimal as
      strings, dataclasses as objects). The bytes are made at the call; what changes afterwards is not seen.
    - `secret`: sign as Standard Webhooks says. A `whsec_...` secret or the name of an entry of `ASOK_WEBHOOK_SECRETS`;
      several for a rotation, the newest first. Without one the webhook goes unsigned, as Slack has it.
    - `headers`: further ones. The `Content-Type` is application/json where they do not say otherwise.
    - `id`: the `webhook-id`, the same at every attempt; a random one when None.
    - `timeout`: seconds, 3,600 at most, for the whole attempt, from the name's resolution to the answer's last byte.
    - `allow_private`: hosts or networks that are not public but allowed all the same, besides `ASOK_WEBHOOK_ALLOW`;
      True for every private network and this machine, False not even for those of `ASOK_WEBHOOK_ALLOW`.
    - `reference`: your own name of the endpoint. It comes back in the Delivery and is sent nowhere.

    Outside of an app context the defaults of the settings apply. Under `ASOK_WEBHOOK_SUPPRESS`, which is `app.testing`
    by default, all is done but the sending: the Delivery has no status.

    Raises TypeError or ValueError for an argument that is no good, at the call of `background()` already;
    WebhookUnavailable when it may work later: no connection, no answer in time, 408, 425, 429 or 5xx;
    WebhookRejected for any other answer (redirects are not followed), WebhookGone for a 410; WebhookBlocked when the
    address is not allowed, before anything is sent. Each has the Delivery as its `delivery`.
    """
    # What `prepare` made of the arguments, and nobody else makes: this is the task itself, not a call inside of one.
    if isinstance(url, Webhook):
        webhook, ours = url, running_task()
    else:
        webhook, ours = _compose(url, payload, secret, headers, id, timeout, allow_private, reference), None
    # No variables of a frame that may be in a traceback: some loggers print those.
    del url, payload, secret, headers
    return _deliver(webhook, ours, suppress=_is_suppressed())


def send_anyway(url: str, payload: Any, secret: signing.Secret | None) -> Delivery:
    """Deliver as `send_webhook` does, whatever `ASOK_WEBHOOK_SUPPRESS` says: for the command that tries it."""
    return _deliver(_compose(url, payload, secret, None, None, 15, None, None), None, suppress=False)


def _deliver(webhook: Webhook, ours: RunnableTask[Any] | None, *, suppress: bool) -> Delivery:
    if _can_come_back(ours):
        _unfinished().begin(ours, webhook)
    try:
        delivery = _rehearse(webhook, ours) if suppress else _attempt(webhook, ours)
    except WebhookError as error:
        _fail(error, ours)
    except NotYet:
        raise
    except BaseException as error:
        # The log shows it with the traceback.
        error.add_note(webhook.__asok_about__)
        raise
    if _can_come_back(ours):
        _unfinished().end(ours)
    return delivery


def _compose(
    url: str,
    payload: Any,
    secret: signing.Secret | None,
    headers: Mapping[str, str] | None,
    id: str | None,
    timeout: float,
    allow_private: bool | str | Iterable[str] | None,
    reference: str | None,
    *,
    know_names: bool = True,
) -> Webhook:
    return compose(
        url,
        payload,
        secret=secret,
        extra_headers=headers,
        id=id,
        timeout=timeout,
        allow_private=allow_private,
        reference=reference,
        max_bytes=_config()["ASOK_WEBHOOK_MAX_BYTES"],
        know_names=know_names,
    )


def _state() -> State | None:
    return current_app.extensions.get(KEY) if has_app_context() else None


def _is_distributed() -> bool:
    state = _state()
    return state is not None and state.backend.distributed


def _config() -> Mapping[str, Any]:
    state = _state()
    return DEFAULTS if state is None else state.config


def _is_suppressed() -> bool:
    suppress: bool | None = _config()["ASOK_WEBHOOK_SUPPRESS"]
    return has_app_context() and current_app.testing if suppress is None else suppress


@contextlib.contextmanager
def _sender() -> Iterator[Sender]:
    """Give the application's sender; outside of one a sender for this call."""
    from .sender import Sender

    state = _state()
    if state is not None:
        yield state.shared("webhooks", lambda: Sender(state.config))
        return
    with contextlib.closing(Sender(DEFAULTS)) as sender:
        yield sender


def _unfinished() -> Unfinished:
    """Return the deliveries of the application that have not ended."""
    return state_of(_app()).shared("unfinished webhooks", lambda: Unfinished(_app(), lost))


def _attempt(webhook: Webhook, ours: RunnableTask[Any] | None) -> Delivery:
    with _sender() as sender:
        return _send(sender, webhook, ours)


def _send(sender: Sender, webhook: Webhook, ours: RunnableTask[Any] | None) -> Delivery:
    from .answer import Malformed
    from .reasons import describe

    url = parse(webhook.url)
    attempts = 1 if ours is None else ours.attempts
    started, timestamp = perf_counter(), int(time())

    def delivery(status: int | None = None, body: bytes = b"") -> Delivery:
        return delivery_of(webhook, url, attempts, timestamp, perf_counter() - started, status, body)

    deadline = Deadline(webhook.timeout)
    can_come_back = _can_come_back(ours)
    pool = _pool(ours)
    seconds = sender.limits.enter(url.host, None if can_come_back else webhook.timeout, pool)
    if seconds is not None:
        if can_come_back and seconds <= LONGEST_LINE:
            raise NotYet(seconds)
        raise WebhookUnavailable(f"{url} is busy with too many other webhooks.", delivery())
    entered = perf_counter()
    answered: bool | None = None
    try:
        timestamp = int(time())
        answer = sender.send(webhook, url, timestamp, deadline)
        answered = True
    except WebhookBlocked as error:
        error.delivery = delivery()
        raise _bare(error) from None
    except signing.UnknownSecret as error:
        raise _unsigned(error, delivery()) from _bare(error)
    except (OSError, Malformed) as error:
        answered = False
        what = describe(error, str(url), sender.proxy_for(url), webhook.timeout)
        raise WebhookUnavailable(what, delivery()) from _bare(error)
    finally:
        sender.limits.leave(url.host, perf_counter() - entered, answered, pool)
    done = delivery(answer.status, answer.body)
    if 200 <= answer.status < 300:
        if delivered.receivers:
            _record(_with_request(done, webhook))
        return done
    raise refusal(url, answer, done, sender.proxy_for(url))


def _rehearse(webhook: Webhook, ours: RunnableTask[Any] | None) -> Delivery:
    """Make an attempt in which all is done but the sending: it needs no Sender, and no network."""
    url = parse(webhook.url)
    delivery = delivery_of(webhook, url, 1 if ours is None else ours.attempts, int(time()), 0.0)
    if refusal := _refused_unresolved(url, webhook):
        raise WebhookBlocked(f"Webhook not sent: {refusal}.", delivery)
    try:
        delivery = _with_request(delivery, webhook)
    except signing.UnknownSecret as error:
        raise _unsigned(error, delivery) from _bare(error)
    log(logging.INFO, "Webhook %s for %s was not sent: ASOK_WEBHOOK_SUPPRESS.", webhook.id, url)
    _record(delivery)
    return delivery


def _refused_unresolved(url: Url, webhook: Webhook) -> str | None:
    """Return why a webhook must not go to `url`, as far as that can be told without looking up a name."""
    config = _config()
    address = in_figures(url.host)
    if address is None or config["ASOK_WEBHOOK_PROXY"]:
        return None
    policy = Policy.of(config["ASOK_WEBHOOK_ALLOW"], "ASOK_WEBHOOK_ALLOW")
    return policy_for(webhook, policy).refusal(url.host, [str(address)])


def _with_request(delivery: Delivery, webhook: Webhook) -> Delivery:
    return dataclasses.replace(delivery, full_url=webhook.url, headers=signed_headers(webhook, delivery.timestamp))


def _record(delivery: Delivery) -> None:
    if has_app_context():
        signals.emit(delivered, _app(), delivery=delivery)


def _unsigned(error: signing.UnknownSecret, delivery: Delivery) -> WebhookUnavailable:
    # A worker that has not the settings of its caller, yet: they may be on their way.
    return WebhookUnavailable(f"The webhook for {delivery.url} was not sent: {error}", delivery)


def _bare(error: E) -> E:
    """Return `error` without its frames: their variables are path, headers and keys, and some loggers print those."""
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error


def _can_come_back(ours: RunnableTask[Any] | None) -> TypeGuard[RunnableTask[Any]]:
    """Does this task wait in this very process, where it holds no thread meanwhile?"""
    state = _state()
    return ours is not None and state is not None and state.backend.in_process


def _pool(ours: RunnableTask[Any] | None) -> Pool | None:
    """Return the threads that this attempt is made on, where others may want them."""
    size = state_of(_app()).backend.queues.get(ours.queue) if _can_come_back(ours) else None
    return None if ours is None or size is None else Pool(ours.queue, size)


def _fail(error: WebhookError, ours: RunnableTask[Any] | None) -> NoReturn:
    """Raise `error`, as a Retry where the receiver named a time; send the signals when it is the last word."""
    if ours is not None:
        options = ours.options
        if ours.attempts <= options.retries and isinstance(error, options.retry_on):
            if _can_come_back(ours):
                _unfinished().fail(ours, error)
            if (after := _asked_to_wait(error, ours)) is not None:
                raise Retry(after=after) from error
            raise error
    # A shutdown that could not wait for this attempt has told of it already.
    told = _can_come_back(ours) and not _unfinished().end(ours) and ours.summary.state == "abandoned"
    if has_app_context() and not told:
        if isinstance(error, WebhookGone):
            signals.emit(signals.webhook_gone, _app(), delivery=error.delivery, error=error)
        signals.emit(signals.webhook_failed, _app(), delivery=error.delivery, error=error)
    raise error


def _asked_to_wait(error: WebhookError, ours: RunnableTask[Any]) -> float | None:
    """Return the seconds that the receiver asked for, or those of the backoff where these are more."""
    if not isinstance(error, WebhookUnavailable) or error.retry_after is None:
        return None
    try:
        return max(error.retry_after, wait_before(ours.options, ours.attempts + 1))
    except Exception:
        # It raises once more, and is logged, where the retry is made.
        return None


def _app() -> Flask:
    return current_app._get_current_object()  # type: ignore[attr-defined, no-any-return]
