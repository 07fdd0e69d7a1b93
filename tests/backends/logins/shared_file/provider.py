"""A token endpoint on loopback whose refresh tokens can be used once, as vendors' are.

The answer to a spent one is repeated while its successor is unused, because the first answer may have been lost; then it is `invalid_grant`.
"""

from __future__ import annotations

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

LIFETIME = 5000.0


class Grant:
    def __init__(self, number: int, now: float) -> None:
        self.access, self.refresh = f"access-{number}", f"refresh-{number}"
        self.expires = now + LIFETIME
        self.successor: Grant | None = None

    def document(self) -> dict[str, Any]:
        return {"access_token": self.access, "refresh_token": self.refresh, "expires": self.expires}


class Provider:
    """`clock` is a file that says what time it is for all programs of the test. `renewals` counts refresh tokens that were spent,
    `repeated` answers that were given again.
    """

    def __init__(self, clock: Path) -> None:
        self.clock = clock
        self.renewals = 0
        self.repeated = 0
        self._numbers = count(1)
        self._grants: dict[str, Grant] = {}
        self._lock = threading.Lock()
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                fields = json.loads(self.rfile.read(int(self.headers["content-length"])))
                found = provider.login() if self.path == "/login" else provider.renew(fields["refresh_token"])
                body = json.dumps(found or {"error": "invalid_grant"}).encode()
                with contextlib.suppress(ConnectionError):  # the caller was killed
                    self.send_response(200 if found else 400)
                    self.send_header("content-type", "application/json")
                    self.send_header("content-length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def issued(self) -> int:
        """How many logins and renewals it has given; each is written to the file, unless its writer is killed or finds a newer one."""
        return len(self._grants)

    def now(self) -> float:
        return float(self.clock.read_text())

    def login(self) -> dict[str, Any]:
        with self._lock:
            return self._grant().document()

    def renew(self, refresh_token: str) -> dict[str, Any] | None:
        with self._lock:
            grant = self._grants.get(refresh_token)
            if grant is None or not self._accepts(grant):
                return None
            if grant.successor is None:
                grant.successor = self._grant()
                self.renewals += 1
            else:
                self.repeated += 1
            return grant.successor.document()

    def accepts(self, refresh_token: str) -> bool:
        with self._lock:
            grant = self._grants.get(refresh_token)
            return grant is not None and self._accepts(grant)

    def good(self, access_token: str) -> bool:
        with self._lock:
            return any(grant.access == access_token and grant.expires > self.now() for grant in self._grants.values())

    def _accepts(self, grant: Grant) -> bool:
        return grant.successor is None or grant.successor.successor is None

    def _grant(self) -> Grant:
        grant = Grant(next(self._numbers), self.now())
        self._grants[grant.refresh] = grant
        return grant
