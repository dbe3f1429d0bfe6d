"""A server of S3 on loopback, and a relay before it that fails as servers and networks do."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3

#: What a test must not have from the machine that it runs on.
KEYS = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"}


class S3Server:
    """Moto's server, in a process of its own.

    Attributes:
        port: on 127.0.0.1.
        client: of boto3, with credentials that the server takes before :meth:`ask_for_keys`.
    """

    def __init__(self, log: Path) -> None:
        """Start, and wait until it answers."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        with log.open("w") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        for _ in range(300):
            try:
                socket.create_connection(("127.0.0.1", self.port), 0.2).close()
                break
            except OSError:
                assert self._process.poll() is None, log.read_text()
                time.sleep(0.1)
        self.client = self._client("s3")

    def _client(self, service: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=f"http://127.0.0.1:{self.port}",
            aws_access_key_id="x",
            aws_secret_access_key="y",
            region_name="us-east-1",
        )

    def environment(self, port: int | None = None) -> dict[str, str]:
        """What leads to the server, in GDAL's words."""
        return {
            **KEYS,
            "AWS_S3_ENDPOINT": f"127.0.0.1:{port or self.port}",
            "AWS_HTTPS": "NO",
            "AWS_VIRTUAL_HOSTING": "FALSE",
            "AWS_REGION": "us-east-1",
        }

    def user(self, name: str, *actions: str, on: str = "*") -> dict[str, str]:
        """Make a user who may do this, there, and nothing else; their keys."""
        iam = self._client("iam")
        iam.create_user(UserName=name)
        statement = {"Effect": "Allow", "Action": list(actions), "Resource": on}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=policy)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return {
            "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
        }

    def ask_for_keys(self, *, asking: bool) -> None:
        """Have the server look at credentials, or take any."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/moto-api/reset-auth",
            data=b"0" if asking else b"inf",
            headers={"Content-Type": "text/plain"},
        )
        urllib.request.urlopen(request).close()

    def objects(self, bucket: str, prefix: str = "") -> dict[str, bytes]:
        """All objects, by what follows the prefix."""
        found = self.client.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", ())
        keys = [entry["Key"] for entry in found]
        return {
            key.removeprefix(prefix): self.client.get_object(Bucket=bucket, Key=key)["Body"].read()
            for key in keys
        }

    def stop(self) -> None:
        """End."""
        self._process.kill()
        self._process.wait()


class Relay:
    """Passes requests on to a server, and fails when it is told to.

    Attributes:
        fault: gets the method and the path of a request; gives "503", "501", "cut" (half of an
            answer's body), "hold" (no answer until :attr:`go_on` is set), or None.
        holding: set while a request is held.
        go_on: set by a test to have held requests end.
        failed: requests that failed.
    """

    def __init__(self, port: int) -> None:
        """Start, before a server on that port."""
        self.fault: Callable[[str, str], str | None] = lambda method, path: None
        self.holding, self.go_on = threading.Event(), threading.Event()
        self.failed: list[tuple[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                fault = outer.fault(self.command, self.path)
                if fault:
                    outer.failed.append((self.command, self.path))
                if fault == "hold":
                    outer.holding.set()
                    outer.go_on.wait(60)
                    self.close_connection = True
                    return
                if fault in ("501", "503"):
                    code = {"501": "NotImplemented", "503": "SlowDown"}[fault]
                    text = f"<Error><Code>{code}</Code><Message>No</Message></Error>"
                    return self._answer(int(fault), {}, text.encode())
                server = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                headers = {k: v for k, v in self.headers.items() if k.lower() != "expect"}
                server.request(self.command, self.path, body, headers)
                answer = server.getresponse()
                self._answer(answer.status, dict(answer.getheaders()), answer.read(), fault)
                server.close()

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = do  # noqa: N815

            def _answer(
                self, status: int, headers: Mapping[str, str], body: bytes, fault: str | None = None
            ) -> None:
                self.send_response_only(status)
                for name, value in headers.items():
                    if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                        self.send_header(name, value)
                length = headers.get("content-length") if self.command == "HEAD" else None
                self.send_header("Content-Length", length or str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body[: len(body) // 2] if fault == "cut" else body)
                self.close_connection = fault == "cut"

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """End."""
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()


def clean(environment: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with this in place of all that it says of S3."""
    own = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    nowhere = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    return {**own, **nowhere, "AWS_EC2_METADATA_DISABLED": "true", **environment}
