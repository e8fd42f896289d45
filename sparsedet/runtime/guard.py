"""What keeps other sites, and too much work, away from a page that only this machine is to see."""

from __future__ import annotations

import base64
import hashlib
from threading import BoundedSemaphore
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask, Request, Response

HOSTS = ("127.0.0.1", "localhost")
LARGEST = 64 * 2**20  # bytes of an upload
AT_ONCE = 4  # uploads that are taken at once; they wait for each other to be worked on


def protect(app: Flask, script: str, style: str) -> None:
    """Refuse what does not come from the page, is too large or too much, and let nothing out.

    A site whose name is made to point to this machine (DNS rebinding) has its own name in Host, and
    one that posts here has it in Origin. Refusals of those are bare text, so as to tell nothing.

    Args:
        script, style: what is inline in the page; the browser will run no other.
    """
    import flask

    app.config["MAX_CONTENT_LENGTH"] = LARGEST
    slots = BoundedSemaphore(AT_ONCE)
    policy = (
        f"default-src 'none'; img-src data:; script-src {_hash(script)}; style-src {_hash(style)}; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    )

    @app.before_request
    def check() -> Response | None:
        refusal = _foreign(flask.request)
        if refusal:
            return flask.Response(f"{refusal}\n", 403, mimetype="text/plain")
        if flask.request.method == "POST":
            if not slots.acquire(blocking=False):
                flask.abort(503, f"{AT_ONCE} pictures are at work already; try again soon")
            flask.g.slot = slots
        return None

    @app.teardown_request
    def release(error: BaseException | None) -> None:
        slot = flask.g.pop("slot", None)
        if slot:
            slot.release()

    @app.after_request
    def seal(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = policy
        response.headers["X-Content-Type-Options"] = "nosniff"
        # Not "no-referrer", with which a browser hides even from the page that it posts to itself.
        response.headers["Referrer-Policy"] = "same-origin"
        response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
        response.headers["Cache-Control"] = "no-store"
        return response


def _foreign(request: Request) -> str:
    """Why the request is not of this machine's own page; "" if it is."""
    host = request.headers.get("Host", "")
    if host.partition(":")[0] not in HOSTS:
        return f"this page is at {HOSTS[0]} alone"
    origin = request.headers.get("Origin")
    if origin is not None and origin != f"http://{host}":
        return "this page takes pictures from itself alone"
    return ""


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
