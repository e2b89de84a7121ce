"""What one application sends its webhooks with: settings, connections, limits. Imported with the first delivery."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter, time
from typing import Any

from ...retries import NotYet
from .answer import Malformed
from .deadline import Deadline
from .delivery import Delivery
from .errors import WebhookBlocked, WebhookUnavailable
from .host_limits import LONGEST_LINE, HostLimits, Pool
from .outcome import delivery_of, error_of, not_signed, without_frames
from .policy import Policy
from .reasons import describe
from .signing import UnknownSecret
from .transport import Transport
from .url import parse_url
from .webhook import Webhook, policy_for, signed_headers


class Sender:
    """Made with an application's first delivery in a process, closed with the application. Any thread may use it."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._policy = Policy.of(config["ASOK_WEBHOOK_ALLOW"], "ASOK_WEBHOOK_ALLOW")
        self._transport = Transport(config["ASOK_WEBHOOK_CA_FILE"], config["ASOK_WEBHOOK_PROXY"])
        self.limits: HostLimits = HostLimits(config["ASOK_WEBHOOK_PER_HOST"])

    def attempt(
        self, webhook: Webhook, attempts: int, pool: Pool | None, begin: Callable[[], None], *, can_come_back: bool
    ) -> Delivery:
        """
        Make attempt number `attempts` on a thread of `pool`, and return the Delivery of a 2xx.

        Calls `begin()` once the host has a slot for it, before anything is sent.
        Raises a WebhookError for everything else; NotYet if the host is busy and the delivery can come back later.
        """
        url = parse_url(webhook.url)
        started, timestamp = perf_counter(), int(time())

        def delivery(status: int | None = None, body: bytes = b"") -> Delivery:
            return delivery_of(webhook, url, attempts, timestamp, perf_counter() - started, status, body)

        deadline = Deadline(webhook.timeout)
        seconds = self.limits.enter(url.host, None if can_come_back else webhook.timeout, pool)
        if seconds is not None:
            if can_come_back and seconds <= LONGEST_LINE:
                raise NotYet(seconds)
            raise WebhookUnavailable(f"{url} is busy with too many other webhooks.", delivery())
        entered = perf_counter()
        proxy = self._transport.proxy_for(url)
        answered: bool | None = None
        try:
            begin()
            timestamp = int(time())
            policy = policy_for(webhook, self._policy)
            # No variable for the headers: some loggers print those of the frames in a traceback.
            answer = self._transport.post(url, signed_headers(webhook, timestamp), webhook.body, policy, deadline)
            answered = True
        except WebhookBlocked as error:
            error.delivery = delivery()
            raise without_frames(error) from None
        except UnknownSecret as error:
            raise not_signed(error, delivery()) from without_frames(error)
        except (OSError, Malformed) as error:
            answered = False
            what = describe(error, str(url), proxy, webhook.timeout)
            raise WebhookUnavailable(what, delivery()) from without_frames(error)
        finally:
            self.limits.leave(url.host, perf_counter() - entered, answered, pool)
        done = delivery(answer.status, answer.body)
        if 200 <= answer.status < 300:
            return done
        raise error_of(url, answer, done, proxy)

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()
