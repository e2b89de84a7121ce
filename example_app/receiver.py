"""Somebody else's site, which receives our webhooks: the model of a route that does."""

from __future__ import annotations

import time
from typing import Any

from flask import Flask, request

from flask_asok import WebhookNotVerified, verify_webhook

from . import db


def create_receiver(folder: str, secret: str, pause: float) -> Flask:
    """Make the site. It notes each delivery in the database in `folder`, and takes `pause` seconds to answer."""
    app = Flask(__name__)
    app.config["EXAMPLE_FOLDER"] = folder
    app.teardown_appcontext(db.close_db)

    @app.post("/webhooks")
    def receive() -> tuple[str, int]:
        time.sleep(pause)
        # The bytes as they came: parsed and written again, they would not be what was signed.
        body = request.get_data()
        try:
            webhook_id = verify_webhook(request.headers, body, secret)
        except WebhookNotVerified as error:
            return answer(request.headers.get("webhook-id", ""), None, 401, str(error))
        sign_up = request.get_json()["sign_up"]
        earlier = deliveries(webhook_id)
        if any(delivery["status"] == 204 for delivery in earlier):
            return answer(webhook_id, sign_up, 204, "known already, not done twice")
        if len(earlier) < request.args.get("fail", 0, type=int):
            return answer(webhook_id, sign_up, 503, "down, as you asked")
        return answer(webhook_id, sign_up, 204, "signature verified")

    return app


def deliveries(webhook_id: str) -> list[Any]:
    """Return what came before with this id, which stays the same when the sender tries again."""
    return db.get_db().execute("SELECT status FROM deliveries WHERE webhook_id = ?", (webhook_id,)).fetchall()


def answer(webhook_id: str, sign_up: int | None, status: int, note: str) -> tuple[str, int]:
    """Note the delivery, and answer it."""
    db.get_db().execute(
        "INSERT INTO deliveries (webhook_id, sign_up, status, note) VALUES (?, ?, ?, ?)",
        (webhook_id, sign_up, status, note),
    )
    return "", status
