"""Background work for Flask: run any function after the page has answered."""

from .dispatch import background, task
from .errors import (
    AsokError,
    BackendUnavailable,
    NotConfigured,
    QueueFull,
    ResultNotKept,
    TaskAbandoned,
    TaskCancelled,
    TaskFailed,
    TaskTimeout,
)
from .extension import FlaskAsok
from .progress import Progress
from .recipes.cache import Cache, CacheUnavailable, cached, warm_cache
from .recipes.images import ImageError, Picture, Renditions, make_renditions, resize_image, save_upload
from .recipes.mail import Mail, MailError, MailRefused, MailUnavailable, check_address, send_mail
from .recipes.webhooks import (
    Delivery,
    WebhookBlocked,
    WebhookError,
    WebhookGone,
    WebhookNotVerified,
    WebhookRejected,
    WebhookUnavailable,
    send_webhook,
    verify_webhook,
)
from .reporting import report_progress, track
from .retries import Retry
from .summaries import TaskSummary
from .tasks import Task, current_task

__all__ = [
    "AsokError",
    "BackendUnavailable",
    "Cache",
    "CacheUnavailable",
    "Delivery",
    "FlaskAsok",
    "ImageError",
    "Mail",
    "MailError",
    "MailRefused",
    "MailUnavailable",
    "NotConfigured",
    "Picture",
    "Progress",
    "QueueFull",
    "Renditions",
    "ResultNotKept",
    "Retry",
    "Task",
    "TaskAbandoned",
    "TaskCancelled",
    "TaskFailed",
    "TaskSummary",
    "TaskTimeout",
    "WebhookBlocked",
    "WebhookError",
    "WebhookGone",
    "WebhookNotVerified",
    "WebhookRejected",
    "WebhookUnavailable",
    "background",
    "cached",
    "check_address",
    "current_task",
    "make_renditions",
    "report_progress",
    "resize_image",
    "save_upload",
    "send_mail",
    "send_webhook",
    "task",
    "track",
    "verify_webhook",
    "warm_cache",
]


def __dir__() -> list[str]:
    """Return what an editor or a shell offers: the API, and not the modules that it is made of."""
    return [*__all__, "errors", "signals"]
