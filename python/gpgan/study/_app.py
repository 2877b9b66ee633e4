"""The study's pages. What a request says picks among what the study holds; nothing of it becomes a path."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import re
import secrets

from flask import Flask, Response, abort, make_response, redirect, render_template, request, url_for
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as BaseResponse

from gpgan.study._pictures import shown_size
from gpgan.study._study import Progress, Study
from gpgan.study._votes import UnavailableError

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; script-src 'self'; style-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Not no-referrer, with which a browser says no origin of a form either.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # A page from the history would show a trial that was answered.
    "Cache-Control": "no-store",
}
_SECRET = re.compile(r"[A-Za-z0-9_-]{43}")
_MONTH = 30 * 24 * 3600
_LONGEST_NAME = 80


def make_app(study: Study, hosts: tuple[str, ...]) -> Flask:
    """The application; `hosts` as in :func:`gpgan.study.create_app`."""
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = 16 << 10
    app.extensions["gpgan_study"] = study
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    # Cookies are shared by all ports of a machine: two studies must not take each other's.
    cookie = "gpgan_study_" + hashlib.sha256(os.fsencode(study.votes.path.absolute())).hexdigest()[:12]

    def secret() -> str | None:
        """What this browser keeps, if it is of the form that it was given."""
        value = request.cookies.get(cookie, "")
        return value if _SECRET.fullmatch(value) else None

    def rater() -> tuple[int, str]:
        own = secret()
        known = study.votes.rater(_hash(own)) if own else None
        if known is None:
            abort(403, "This page is for somebody who has started the study. Open its first page.")
        return known

    def page(template: str, own: str, **values: object) -> Response:
        response = make_response(render_template(template, token=_token(own), **values))
        # Not Strict: a link from another site would make a new person of whoever follows it.
        response.set_cookie(cookie, own, max_age=_MONTH, httponly=True, samesite="Lax")
        return response

    @app.before_request
    def check_request() -> None:
        host = request.environ.get("HTTP_HOST", "")
        if not _is_host(host, hosts):
            abort(421, "This server does not answer to that name.")
        if request.method == "POST":
            origin = request.headers.get("Origin")
            if origin is not None and origin.lower().partition("://")[2] != host.lower():
                abort(403, "This was sent from another site.")
            if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
                abort(403, "This was sent from another site.")
            own = secret()
            if own is None:
                abort(403, "Your browser did not send the study's cookie. Allow cookies and open the first page again.")
            if not hmac.compare_digest(request.form.get("token", "").encode(), _token(own).encode()):
                abort(403, "This page was not the study's own, or too old. Open the first page again.")

    @app.after_request
    def add_headers(response: Response) -> Response:
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    @app.errorhandler(HTTPException)
    def explain(error: HTTPException) -> tuple[str, int]:
        return render_template("error.html", name=error.name, text=error.description), error.code or 500

    @app.errorhandler(UnavailableError)
    def cannot_save(error: UnavailableError) -> tuple[str, int]:
        app.logger.error("%s", error)
        text = "The server cannot read or save something now. Nothing that you chose before is lost; try again."
        return render_template("error.html", name="Not now", text=text), 503

    @app.get("/")
    def index() -> Response:
        own = secret() or secrets.token_urlsafe(32)
        known = study.votes.rater(_hash(own))
        if known is None:
            return page("welcome.html", own, show=study.show, trials=study.trials, longest_name=_LONGEST_NAME)
        progress = study.next_trial(known[0])
        if progress.trial is None:
            return page("thanks.html", own, name=known[1], answered=progress.answered)
        return page("trial.html", own, **_trial_values(study, progress))

    @app.post("/start")
    def start() -> BaseResponse:
        name = "".join(c for c in request.form.get("name", "") if c.isprintable()).strip()[:_LONGEST_NAME]
        study.votes.add_rater(_hash(secret() or ""), name)
        return redirect(url_for("index"), 303)

    @app.post("/vote")
    def vote() -> BaseResponse:
        number, _ = rater()
        choice = request.form.get("choice", "")
        shown = study.votes.trial(number, request.form.get("trial", ""))
        if shown is None:
            abort(400, "There is no such question.")
        places = {str(k + 1): k for k in range(len(shown.shown))}
        if choice != "skip" and choice not in places:
            abort(400, "There is no such choice.")
        study.votes.vote(number, shown.id, places.get(choice), _milliseconds(request.form.get("response_ms", "")))
        return redirect(url_for("index"), 303)

    @app.post("/leave")
    def leave() -> BaseResponse:
        response = redirect(url_for("index"), 303)
        response.delete_cookie(cookie, httponly=True, samesite="Lax")
        return response

    @app.get("/picture/<trial>/<int:place>")
    def picture(trial: str, place: int) -> Response:
        number, _ = rater()
        shown = study.votes.trial(number, trial)
        if shown is None or not study.can_show(shown) or place > len(shown.shown):
            abort(404, "There is no such picture.")
        response = Response(study.picture(shown, place), mimetype="image/png")
        # The page before has loaded it; nobody else's has its address.
        response.headers["Cache-Control"] = "private, max-age=3600"
        return response

    return app


def _trial_values(study: Study, progress: Progress) -> dict[str, object]:
    """What the page of a trial says: nothing of methods or items."""
    trial = progress.trial
    assert trial is not None
    item = study.items[trial.item]
    height, width = shown_size(item.size, study.max_side)
    longer = max(item.size)
    return {
        "trial": trial.id,
        "upcoming": progress.upcoming and progress.upcoming.id,
        "upcoming_count": 1 + len(progress.upcoming.shown) if progress.upcoming else 0,
        "count": len(trial.shown),
        "number": progress.answered + 1,
        "total": progress.total,
        "height": height,
        "width": width,
        "outline": study.outline(item),
        "view_box": f"0 0 {1000 * item.size[1] / longer:.1f} {1000 * item.size[0] / longer:.1f}",
    }


def _hash(secret: str) -> str:
    """What the votes know a browser by; from it nobody can tell the cookie."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _token(secret: str) -> str:
    """What a form must send along: only a page that was made for this cookie has it."""
    return hmac.new(secret.encode(), b"form", hashlib.sha256).hexdigest()


def _is_host(value: str, hosts: tuple[str, ...]) -> bool:
    """Whether a Host header has a name of this server's, so that another name cannot be made to point here."""
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?", value)
    if match is None:
        return False
    name = match[1].lower()
    if name in (host.lower() for host in hosts):
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return "*" in hosts


def _milliseconds(text: str) -> int | None:
    """A response time, if it is one of less than a day."""
    return int(text) if re.fullmatch(r"[0-9]{1,8}", text) and int(text) < 86_400_000 else None
