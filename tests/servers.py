"""Servers on loopback that fail as servers on the internet do."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

#: What a server may do instead of its work. "cut": half of the body, then the end of the
#: connection; "stall": a little of the body, then nothing; "slow": all of it, bit by bit;
#: "503": refuse.
FAULTS = ("cut", "stall", "slow", "503")


class FaultyServer:
    """Serves a folder with ranges, and fails when it is told to.

    Attributes:
        fault: gets the number of a request for a body, from 0, and its first byte; gives one of
            :data:`FAULTS` or None.
        forbidden: paths that nobody may read.
        bodies: requests for bodies so far.
        failed: of these, those that failed.
        broken_off: those whose answers the other side did not wait for.
    """

    def __init__(self, folder: Path) -> None:
        """Start."""
        self.fault: Callable[[int, int], str | None] = lambda number, first: None
        self.forbidden: set[str] = set()
        self.bodies = self.failed = self.broken_off = 0
        self._stopping = threading.Event()
        outer, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_HEAD(self) -> None:
                self._answer(body=False)

            def do_GET(self) -> None:
                self._answer(body=True)

            def _answer(self, *, body: bool) -> None:
                file = folder / self.path.split("?")[0].lstrip("/")
                if self.path in outer.forbidden:
                    return self._refuse(403)
                if not file.is_file():
                    return self._refuse(404)
                data = file.read_bytes()
                wanted = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
                first = int(wanted[1]) if wanted else 0
                last = min(int(wanted[2]), len(data) - 1) if wanted and wanted[2] else len(data) - 1
                fault = None
                if body:
                    with lock:
                        fault = outer.fault(outer.bodies, first)
                        outer.bodies += 1
                        outer.failed += fault is not None
                if fault == "503":
                    return self._refuse(503)
                self.send_response(206 if wanted else 200)
                if wanted:
                    self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
                self.send_header("Content-Length", str(last - first + 1))
                self.send_header("Accept-Ranges", "bytes")
                self.end_headers()
                if body:
                    self._send(data[first : last + 1], fault)

            def _refuse(self, code: int) -> None:
                self.send_response(code)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def _send(self, part: bytes, fault: str | None) -> None:
                try:
                    if fault == "cut":
                        self.wfile.write(part[: len(part) // 2])
                        self.close_connection = True
                    elif fault == "stall":
                        self.wfile.write(part[:100])
                        self.wfile.flush()
                        outer._stopping.wait(120)
                        self.close_connection = True
                    elif fault == "slow":
                        # Four seconds in all.
                        step = max(1, len(part) // 16)
                        for start in range(0, len(part), step):
                            time.sleep(0.25)
                            self.wfile.write(part[start : start + step])
                            self.wfile.flush()
                    else:
                        self.wfile.write(part)
                except (BrokenPipeError, ConnectionResetError):  # GDAL has seen enough
                    self.close_connection = True
                    outer.broken_off += 1

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
