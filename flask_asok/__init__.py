"""Background work for Flask: run any function after the page has answered."""

from .dispatch import background, task
from .errors import (
    AsokError,
    MailError,
    MailRefused,
    MailUnavailable,
    NotConfigured,
    QueueFull,
    TaskAbandoned,
    TaskCancelled,
    WebhookBlocked,
    WebhookError,
    WebhookGone,
    WebhookNotVerified,
    WebhookRejected,
    WebhookUnavailable,
)
from .extension import FlaskAsok
from .options import Retry
from .recipes.mail import Mail, send_mail
from .recipes.webhooks import Delivery, send_webhook, verify_webhook
from .tasks import Task, TaskSummary, current_task

__all__ = [
    "AsokError",
    "Delivery",
    "FlaskAsok",
    "Mail",
    "MailError",
    "MailRefused",
    "MailUnavailable",
    "NotConfigured",
    "QueueFull",
    "Retry",
    "Task",
    "TaskAbandoned",
    "TaskCancelled",
    "TaskSummary",
    "WebhookBlocked",
    "WebhookError",
    "WebhookGone",
    "WebhookNotVerified",
    "WebhookRejected",
    "WebhookUnavailable",
    "background",
    "current_task",
    "send_mail",
    "send_webhook",
    "task",
    "verify_webhook",
]
