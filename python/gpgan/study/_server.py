"""The study on waitress, until it is told to stop."""

from __future__ import annotations

import logging
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask


def serve(app: Flask, *, host: str, port: int, ready: Callable[[list[str]], None]) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Parameters
    ----------
    app : flask.Flask
    host : str
        Name or address to listen at.
    port : int
        0 takes a free one.
    ready : callable
        Gets the addresses for a browser once it answers: one for this machine, and where `host` is all of this
        machine's addresses, one by its name for others.

    Raises
    ------
    ImportError
        If waitress is missing.
    ValueError
        If it cannot listen there.
    """
    try:
        import waitress
    except ImportError as error:
        raise ImportError("the study needs waitress: pip install 'gpgan[evaluate]'") from error

    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server((str(address[0]), port), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"--host, --port: cannot listen at {host!r}, port {port}: {reason}") from error
    # A browser opens several connections at once: that some wait is nothing to report.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    server = waitress.create_server(app, sockets=[listener], threads=4, ident=None, max_request_body_size=64 << 10)
    # A browser cannot open what stands for all addresses.
    own = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(str(address[0]))
    names = [host] if own is None else [own, socket.gethostname()]
    port = listener.getsockname()[1]
    addresses = [f"http://[{name}]:{port}/" if ":" in name else f"http://{name}:{port}/" for name in names]
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, _stop) if is_main else None
    try:
        ready(addresses)
        server.run()  # ends at a KeyboardInterrupt, when the requests under way are answered
    except KeyboardInterrupt:
        pass
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)
        server.close()
        listener.close()


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
