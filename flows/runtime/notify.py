"""Notifications: e-mail, a webhook, a notification block of Prefect. Counts and reasons only.

A notification that fails is one line of warning and never ends a run.
"""

from __future__ import annotations

import json
import os
import smtplib
import ssl
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from email.message import EmailMessage

from cac_core.events import event
from cac_core.settings import NotifySettings
from flows.runtime.environment import site_api

#: Environment variables with the password of the mail server and the address of the webhook.
PASSWORD_VARIABLE, WEBHOOK_VARIABLE = "CAC_SMTP_PASSWORD", "CAC_WEBHOOK_URL"
_TIMEOUT_S = 20.0


def tell(
    settings: NotifySettings,
    subject: str,
    problems: Sequence[str],
    facts: Mapping[str, object],
    say: Callable[[str], object],
) -> None:
    """Send a message by every way that is set.

    Parameters
    ----------
    subject : one line.
    problems : what is wrong, in words and counts.
    facts : counts by name; None is left out.
    say : receives one line for each way that fails.
    """
    known = {name: value for name, value in facts.items() if value is not None}
    lines = [*problems, "", *(f"{name}: {value}" for name, value in known.items())]
    text = "\n".join(lines) + "\n"
    url = os.environ.get(WEBHOOK_VARIABLE) or settings.webhook_url
    ways: list[tuple[str, bool, Callable[[], object]]] = [
        ("e-mail", settings.smtp_host is not None, lambda: _mail(settings, subject, text)),
        ("webhook", url is not None, lambda: _post(str(url), subject, problems, known)),
        (
            "the Prefect block",
            settings.prefect_block is not None and site_api() is not None,
            lambda: _block(str(settings.prefect_block), subject, text),
        ),
    ]
    for name, is_set, send in ways:
        if not is_set:
            continue
        try:
            send()
        except Exception as error:  # noqa: BLE001 - libraries of servers raise anything
            # Only the class: the message can hold the address of the webhook, a secret.
            say(f"warning: the notification by {name} failed ({type(error).__name__})")
            event("warning", "warning", reason="notification_failed")


def _mail(settings: NotifySettings, subject: str, text: str) -> None:
    message = EmailMessage()
    message["Subject"] = f"cac: {subject}"
    message["From"], message["To"] = settings.mail_from, ", ".join(settings.mail_to or ())
    message.set_content(text)
    host, port = str(settings.smtp_host), settings.smtp_port
    with smtplib.SMTP(host, port, timeout=_TIMEOUT_S) as server:
        if settings.smtp_starttls:
            server.starttls(context=ssl.create_default_context())
        if settings.smtp_user:
            server.login(settings.smtp_user, os.environ.get(PASSWORD_VARIABLE, ""))
        server.send_message(message)


def _post(url: str, subject: str, problems: Sequence[str], facts: Mapping[str, object]) -> None:
    if not url.startswith(("http://", "https://")):
        raise ValueError("not an address of the web")
    # `text` is what chat services show.
    content = {
        "text": f"cac: {subject}: {'; '.join(problems)}",
        "problems": list(problems),
        "facts": dict(facts),
    }
    request = urllib.request.Request(
        url,
        json.dumps(content, default=str).encode(),
        {"Content-Type": "application/json", "User-Agent": "cac-cohort"},
    )
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S):
        pass


def _block(name: str, subject: str, text: str) -> None:
    from prefect.blocks.core import Block

    block = Block.load(name)
    block.notify(text, subject=f"cac: {subject}")  # type: ignore[union-attr]
