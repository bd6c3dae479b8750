"""A service that misbehaves behind the tills' backs: it stands before the real one."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Mapping
from enum import StrEnum
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

import httpx


class Mischief(StrEnum):
    """What is done with the first sale that a gift card pays for."""

    LOSES = "says that it is concluded, and HQ never hears of it"
    CHANGES = "concludes it at HQ with a unit less"
    TAKES_MORE = "takes another unit from the card, with the till's key"


class Front(ThreadingHTTPServer):
    """Passes everything on but one sale; ``url`` is where it is found."""

    def __init__(self, target_url: str, mischief: Mischief) -> None:
        super().__init__(("127.0.0.1", 0), _Passing)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.mischief = mischief
        self.has_happened = threading.Event()
        self.numbers: dict[str, str] = {}
        self.service = httpx.Client(base_url=target_url, trust_env=False, timeout=20)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()
        self.service.close()


class _Passing(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Front

    def answer(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        wish = json.loads(content) if content else {}
        line = self._chosen(wish)
        mischief = self.server.mischief
        if line is not None and mischief is Mischief.LOSES:
            told = [{"line": one["line"], "balance_after_minor": 0} for one in wish["lines"]]
            self._tell(HTTPStatus.CREATED, {}, json.dumps({"lines": told}).encode())
            self.server.has_happened.set()
            return
        if line is not None and mischief is Mischief.CHANGES:
            line["amount_minor"] -= 1
            content = json.dumps(wish).encode()
            self.server.has_happened.set()
        answer = self._pass(self.command, self.path, content)
        if self.path == "/v1/locks" and answer.status_code == HTTPStatus.CREATED:
            instrument_id = answer.json()["instrument"]["instrument_id"]
            self.server.numbers[instrument_id] = wish.get("number", "")
        if line is not None and mischief is Mischief.TAKES_MORE:
            told = {one["line"]: one for one in answer.json().get("lines", ())}
            if told and told[line["line"]]["balance_after_minor"]:
                self._take_more(wish, line)
                self.server.has_happened.set()
        self._tell(answer.status_code, answer.headers, answer.content)

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def do_PATCH(self) -> None:
        self.answer()

    def _chosen(self, wish: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the line of a gift card, if this is a sale with one and nothing was done yet."""
        if self.path != "/v1/transactions" or self.server.has_happened.is_set():
            return None
        for line in wish["lines"]:
            number = self.server.numbers.get(line["instrument_id"], "")
            if line["operation"] == "redeem" and number.startswith("6006"):
                found: dict[str, Any] = line
                return found
        return None

    def _take_more(self, wish: Mapping[str, Any], line: Mapping[str, Any]) -> None:
        key = {name: wish[name] for name in ("store_id", "terminal_id")}
        key |= {"transaction_id": uuid.uuid4().hex, "line": 1}
        number = self.server.numbers[line["instrument_id"]]
        lock = {**key, "kind": "gift_card", "purpose": "redeem", "number": number}
        locked = self._pass("POST", "/v1/locks", json.dumps(lock).encode())
        assert locked.status_code == HTTPStatus.CREATED, locked.text
        one = {
            **key,
            "instrument_id": line["instrument_id"],
            "lock_id": locked.json()["lock_id"],
            "amount_minor": 1,
            "currency": line["currency"],
        }
        taken = self._pass("POST", "/v1/redemptions", json.dumps(one).encode())
        assert taken.status_code == HTTPStatus.CREATED, taken.text

    def _pass(self, method: str, path: str, content: bytes) -> httpx.Response:
        names = ("Authorization", "Content-Type", "If-Match", "If-None-Match")
        headers = {name: self.headers[name] for name in names if name in self.headers}
        return self.server.service.request(method, path, content=content, headers=headers)

    def _tell(self, status: int, headers: Mapping[str, str], content: bytes) -> None:
        self.send_response_only(status)
        for name in ("Content-Type", "ETag", "Cache-Control", "Idempotency-Replayed"):
            if name in headers:
                self.send_header(name, headers[name])
        if status != HTTPStatus.NOT_MODIFIED:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if status != HTTPStatus.NOT_MODIFIED:
            self.wfile.write(content)

    def log_message(self, *_arguments: Any) -> None:
        pass
