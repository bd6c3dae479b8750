"""The proxy does to messages what it is told to, and nothing else."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from hq_service.terminal.client import Client, Unreachable
from hq_service.terminal.proxy import (
    LOOPBACK,
    Fate,
    Gate,
    Proxy,
    Request,
    SeededChance,
    Verdict,
)
from tests.support import Card, Hq, Till, a_name, served

LOCKS, REDEMPTIONS, INQUIRIES = "/v1/locks", "/v1/redemptions", "/v1/balance-inquiries"
LONG_SECONDS = 3_600


@pytest.fixture(scope="module")
def service_url(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("service") / "log"
    with served(database_url, log) as port:
        yield f"http://{LOOPBACK}:{port}"


@pytest.fixture
def proxy(service_url: str) -> Iterator[Proxy]:
    threads_before = threading.active_count()
    with Proxy(service_url) as proxy:
        yield proxy
        assert proxy.unused_plans_count == 0
    assert threading.active_count() == threads_before


@pytest.fixture
def till(hq: Hq) -> Till:
    return hq.till()


@pytest.fixture
def client(proxy: Proxy, till: Till) -> Iterator[Client]:
    with Client(proxy.url, till.key) as client:
        yield client


@pytest.fixture
def card(hq: Hq) -> Card:
    return hq.issue(500)


def lock_wish(till: Till, card: Card, sale: str = "sale") -> dict[str, Any]:
    wish = {"kind": card.kind, "number": card.number, "purpose": "redeem"}
    return {**till.key_of(sale), **wish}


def redemption(till: Till, card: Card, sale: str = "sale") -> dict[str, Any]:
    """Lock a card past the proxy, and return what redeems it."""
    lock = till.lock(card, sale)
    held = {"instrument_id": card.instrument_id, "lock_id": lock.json["lock_id"]}
    return {**till.key_of(sale), **held, "amount_minor": 120, "currency": "SEK"}


def test_what_is_delivered_is_answered_as_without_the_proxy(
    proxy: Proxy, service_url: str, till: Till
) -> None:
    headers = {"Authorization": f"Bearer {till.key}", "X-Request-Id": "the-same"}
    for path in ("/v1/parameters", "/v1/locks", "/v1/nothing", "/healthz", "/v1/locks?limit=0"):
        direct = httpx.get(service_url + path, headers=headers)
        through = httpx.get(proxy.url + path, headers=headers)
        assert (through.status_code, through.content) == (direct.status_code, direct.content)
        differing = {"date", "connection", "server"}
        for answer in (direct, through):
            for name in differing:
                answer.headers.pop(name, None)
        assert through.headers == direct.headers
    assert proxy.counts == {Fate.DELIVERED: 5}


def test_a_condition_and_its_304_pass_through(proxy: Proxy, till: Till) -> None:
    with httpx.Client(headers={"Authorization": f"Bearer {till.key}"}) as http:
        seen = http.get(f"{proxy.url}/v1/parameters")
        headers = {"If-None-Match": seen.headers["ETag"]}
        again = http.get(f"{proxy.url}/v1/parameters", headers=headers)
        assert (again.status_code, again.content) == (304, b"")
        head = http.head(f"{proxy.url}/v1/parameters")
        assert (head.status_code, head.content) == (405, b"")


def test_many_requests_go_through_one_connection_of_the_till(
    proxy: Proxy, client: Client, till: Till, card: Card, hq: Hq
) -> None:
    assert client.post(LOCKS, lock_wish(till, card)).status == 201
    assert client.post(LOCKS, lock_wish(till, card)).is_replay
    assert client.get("/v1/locks").at("locks.0.instrument.balance_minor") == 500
    assert client.post(REDEMPTIONS, redemption(till, card)).status == 201
    assert hq.balance(card) == 380


def test_a_lost_request_is_not_seen_by_the_service(
    proxy: Proxy, client: Client, till: Till, card: Card, hq: Hq
) -> None:
    wish = redemption(till, card)
    proxy.plan("POST", REDEMPTIONS, Fate.REQUEST_LOST)
    with pytest.raises(Unreachable, match="broke the connection off"):
        client.post(REDEMPTIONS, wish)
    assert hq.balance(card) == 500
    assert client.post(REDEMPTIONS, wish).status == 201  # once, and not again


def test_of_a_lost_answer_the_service_has_done_what_was_asked(
    proxy: Proxy, client: Client, till: Till, card: Card, hq: Hq
) -> None:
    wish = redemption(till, card)
    proxy.plan("POST", REDEMPTIONS, Fate.ANSWER_LOST)
    with pytest.raises(Unreachable, match="broke the connection off"):
        client.post(REDEMPTIONS, wish)
    assert hq.balance(card) == 380
    repeated = client.post(REDEMPTIONS, wish)
    assert (repeated.status, repeated.is_replay) == (200, True)
    assert proxy.counts == {Fate.ANSWER_LOST: 1, Fate.DELIVERED: 1}


def test_a_doubled_request_reaches_the_service_twice_and_the_second_answer_is_told(
    proxy: Proxy, client: Client, till: Till, card: Card, hq: Hq
) -> None:
    proxy.plan("POST", REDEMPTIONS, Fate.DUPLICATED)
    told = client.post(REDEMPTIONS, redemption(till, card))
    assert (told.status, told.is_replay) == (200, True)
    assert hq.balance(card) == 380


def test_a_refused_request_is_answered_as_by_a_gateway_and_not_seen_by_the_service(
    proxy: Proxy, client: Client, till: Till, card: Card, hq: Hq
) -> None:
    wish = redemption(till, card)
    proxy.plan("POST", REDEMPTIONS, Fate.REFUSED)
    refused = client.post(REDEMPTIONS, wish)
    assert (refused.status, refused.body) == (503, {})
    assert hq.balance(card) == 500
    assert client.post(REDEMPTIONS, wish).status == 201


@pytest.mark.parametrize(
    ("fate", "balance_minor"), [(Fate.REQUEST_LOST, 500), (Fate.ANSWER_LOST, 380)]
)
def test_a_silent_loss_lasts_until_the_till_gives_up(
    proxy: Proxy, till: Till, card: Card, hq: Hq, fate: Fate, balance_minor: int
) -> None:
    proxy.plan("POST", REDEMPTIONS, fate, is_silent=True)
    wish = redemption(till, card)
    given_up = pytest.raises(Unreachable, match="did not answer within 1 s")
    with Client(proxy.url, till.key, seconds_max=1) as client, given_up:
        client.post(REDEMPTIONS, wish)
    assert proxy.wait_until_idle()
    assert hq.balance(card) == balance_minor


def test_a_request_that_was_held_arrives_although_its_till_has_given_up(
    proxy: Proxy, till: Till, card: Card, hq: Hq
) -> None:
    gate = proxy.hold("POST", REDEMPTIONS)
    wish = redemption(till, card)
    with Client(proxy.url, till.key, seconds_max=1) as client:
        with pytest.raises(Unreachable, match="did not answer"):
            client.post(REDEMPTIONS, wish)
        assert gate.wait_until_reached()
        assert hq.balance(card) == 500
        gate.let_go()
        assert proxy.wait_until_idle()
        assert hq.balance(card) == 380
        assert client.post(REDEMPTIONS, wish).is_replay


def test_a_request_may_be_overtaken(
    proxy: Proxy, client: Client, till: Till, card: Card, hq: Hq
) -> None:
    wish = redemption(till, card)
    void = {**till.key_of("sale"), "instrument_id": card.instrument_id, "reason": "test"}
    gate = proxy.hold("POST", REDEMPTIONS)
    with ThreadPoolExecutor(1) as other, Client(proxy.url, till.key) as second:
        redeemed = other.submit(client.post, REDEMPTIONS, wish)
        assert gate.wait_until_reached()
        assert second.post("/v1/voids", void).status == 201
        gate.let_go()
        answer = redeemed.result()
    assert (answer.status, answer.at("code")) == (409, "voided")
    assert hq.balance(card) == 500


def test_a_delayed_request_is_answered_all_the_same(
    proxy: Proxy, client: Client, till: Till, card: Card
) -> None:
    delays = {"request_delay_seconds": 0.05, "answer_delay_seconds": 0.05}
    proxy.plan("POST", LOCKS, **delays)
    assert client.post(LOCKS, lock_wish(till, card)).status == 201


def test_plans_are_for_their_own_kind_of_request_in_their_order(
    proxy: Proxy, client: Client, till: Till, card: Card
) -> None:
    proxy.plan("POST", LOCKS, Fate.REFUSED)
    proxy.plan("POST", LOCKS, Fate.REQUEST_LOST)
    assert client.get(LOCKS).status == 200
    assert client.post(INQUIRIES, {"kind": card.kind, "number": card.number}).status == 200
    assert client.post(LOCKS, lock_wish(till, card)).status == 503
    with pytest.raises(Unreachable):
        client.post(LOCKS, lock_wish(till, card))
    assert client.post(LOCKS, lock_wish(till, card)).status == 201


def test_a_rule_decides_by_method_and_path_without_the_query(proxy: Proxy, till: Till) -> None:
    asked: list[Request] = []

    def rule(request: Request) -> Verdict:
        asked.append(request)
        return Verdict(Fate.REFUSED)

    proxy.set_rule(rule)
    with Client(proxy.url, till.key) as client:
        assert client.get("/v1/locks?transaction_id=sale").status == 503
        assert client.post("/v1/transactions", {}).status == 503
        assert client.get("/v1/transactions/S/T/X").status == 503
    assert asked[0] == Request("GET", "/v1/locks")
    assert [one.route for one in asked[1:]] == ["/v1/transactions"] * 2


# --- outages --------------------------------------------------------------------------------------


def test_in_an_outage_connections_are_refused_and_afterwards_it_is_as_before(
    proxy: Proxy, client: Client
) -> None:
    assert client.get("/v1/parameters").status == 200
    for _ in range(3):
        proxy.go_down()
        with pytest.raises(Unreachable, match=r"cannot be reached|broke the connection off"):
            client.get("/v1/parameters")
        with pytest.raises(Unreachable, match="cannot be reached"):
            client.get("/v1/parameters")
        proxy.come_up()
        assert client.get("/v1/parameters").status == 200


def test_an_outage_cuts_what_is_under_way(
    proxy: Proxy, client: Client, till: Till, card: Card, hq: Hq
) -> None:
    gate = proxy.hold("POST", REDEMPTIONS)
    wish = redemption(till, card)
    with ThreadPoolExecutor(1) as other:
        redeemed = other.submit(client.post, REDEMPTIONS, wish)
        assert gate.wait_until_reached()
        proxy.go_down()
        with pytest.raises(Unreachable):
            redeemed.result()
    assert hq.balance(card) == 500, "what waited at the gate is not sent any more"
    proxy.come_up()
    assert client.post(REDEMPTIONS, wish).status == 201


def test_nobody_else_gets_the_port_during_an_outage(proxy: Proxy) -> None:
    proxy.go_down()
    port = int(proxy.url.rpartition(":")[2])
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind((LOOPBACK, port))
    proxy.come_up()


def test_going_down_or_up_twice_is_as_once(proxy: Proxy, client: Client) -> None:
    proxy.go_down()
    proxy.go_down()
    proxy.come_up()
    proxy.come_up()
    assert client.get("/v1/parameters").status == 200


@pytest.mark.parametrize(
    "verdict",
    [
        Verdict(gate=Gate()),
        Verdict(request_delay_seconds=LONG_SECONDS),
        Verdict(answer_delay_seconds=LONG_SECONDS),
        Verdict(Fate.REQUEST_LOST, is_silent=True),
        Verdict(Fate.ANSWER_LOST, is_silent=True),
    ],
    ids=["held", "request delayed", "answer delayed", "request lost", "answer lost"],
)
def test_stopping_does_not_wait_for_what_waits(
    service_url: str, till: Till, verdict: Verdict
) -> None:
    threads_before = threading.active_count()
    reached = threading.Event()

    def rule(_request: Request) -> Verdict:
        reached.set()
        return verdict

    proxy = Proxy(service_url, rule)
    client = Client(proxy.url, till.key)
    with ThreadPoolExecutor(1) as other:
        asked = other.submit(client.get, "/v1/parameters")
        assert reached.wait(10)
        proxy.stop()  # would last an hour otherwise
        with pytest.raises(Unreachable):
            asked.result()
    client.close()
    assert threading.active_count() == threads_before
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((LOOPBACK, int(proxy.url.rpartition(":")[2])))


def test_a_service_that_is_away_looks_like_a_lost_request(till: Till) -> None:
    with socket.socket() as nobody:
        nobody.bind((LOOPBACK, 0))  # bound, and nobody listens
        port = nobody.getsockname()[1]
        with Proxy(f"http://{LOOPBACK}:{port}") as proxy, Client(proxy.url, till.key) as client:
            with pytest.raises(Unreachable, match="broke the connection off"):
                client.get("/v1/parameters")
            assert proxy.wait_until_idle()


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://localhost", "http://", ""])
def test_an_address_of_no_service_is_refused_with_a_sentence(url: str) -> None:
    with pytest.raises(ValueError, match="begins with http:// or https://"):
        Proxy(url)


def test_the_proxy_listens_on_this_machine_only(proxy: Proxy) -> None:
    assert proxy.url.startswith("http://127.0.0.1:")
    [address] = {one.getsockname()[0] for one in listening(proxy)}
    assert address == LOOPBACK


def listening(proxy: Proxy) -> list[socket.socket]:
    assert proxy._server is not None
    return [proxy._server.socket]


def test_bytes_pass_unchanged_and_no_header_of_the_till_is_lost() -> None:
    body = random.Random(7).randbytes(300_000)
    headers = {"Content-Type": "application/x-ndjson", "Content-Encoding": "gzip"}
    with recording() as (url, seen), Proxy(url) as proxy, httpx.Client() as http:
        answer = http.post(f"{proxy.url}/v1/offline-batches?x=%20y", content=body, headers=headers)
        assert answer.content == body
        [(line, told, received)] = seen
    assert line == "POST /v1/offline-batches?x=%20y HTTP/1.1"
    assert received == body
    assert told["Host"] == url.removeprefix("http://")
    for name, value in {**headers, "Accept-Encoding": http.headers["Accept-Encoding"]}.items():
        assert told[name] == value


@contextlib.contextmanager
def recording() -> Iterator[tuple[str, list[tuple[str, Any, bytes]]]]:
    """Serve whatever answers with the bytes that it was sent, and remember all of it."""
    seen: list[tuple[str, Any, bytes]] = []

    class Echo(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            seen.append((self.requestline, self.headers, body))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer((LOOPBACK, 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://{LOOPBACK}:{server.server_port}", seen
        finally:
            server.shutdown()
            thread.join()


def test_a_body_without_its_length_is_not_taken(proxy: Proxy, till: Till) -> None:
    headers = {"Authorization": f"Bearer {till.key}"}
    answer = httpx.post(f"{proxy.url}{LOCKS}", content=iter([b"{}"]), headers=headers)
    assert answer.status_code == 411
    assert proxy.counts == {}


# --- chance ---------------------------------------------------------------------------------------

CHANCES = {"request_lost": 0.1, "answer_lost": 0.1, "duplicated": 0.1, "refused": 0.05}
ROUTES = [Request("POST", LOCKS), Request("POST", REDEMPTIONS), Request("GET", LOCKS)]


def drawn(order: list[Request], **more: Any) -> dict[Request, list[Verdict]]:
    chance = SeededChance(**{"seed": 7, **CHANCES, **more})
    found: dict[Request, list[Verdict]] = {}
    for request in order:
        found.setdefault(request, []).append(chance(request))
    return found


def test_a_seed_repeats_its_fates_however_the_routes_are_interleaved() -> None:
    one_by_one = [request for request in ROUTES for _ in range(50)]
    shuffled = random.Random(1).sample(one_by_one, len(one_by_one))
    first = drawn(one_by_one, delayed=0.2, delay_seconds_max=3)
    assert first == drawn(shuffled, delayed=0.2, delay_seconds_max=3)
    assert first != drawn(one_by_one, seed=8, delayed=0.2, delay_seconds_max=3)
    assert first[ROUTES[0]] != first[ROUTES[1]]


def test_fates_are_as_frequent_as_they_were_said_to_be() -> None:
    [verdicts] = drawn([ROUTES[0]] * 4_000, delayed=0.25, delay_seconds_max=2).values()
    for fate, chance in CHANCES.items():
        found = sum(verdict.fate == Fate(fate) for verdict in verdicts)
        assert abs(found / len(verdicts) - chance) < 0.02, fate
    delays = [one.request_delay_seconds for one in verdicts if one.request_delay_seconds]
    assert abs(len(delays) / len(verdicts) - 0.25) < 0.03
    assert max(delays) < 2


def test_without_chances_everything_is_delivered_at_once() -> None:
    assert set(map(SeededChance(3), ROUTES * 20)) == {Verdict()}


def test_whatever_is_lost_a_till_that_repeats_takes_the_money_once(
    proxy: Proxy, till: Till, hq: Hq
) -> None:
    proxy.set_rule(SeededChance(11, 0.2, 0.2, 0.2, 0.1))
    cards = [hq.issue(500) for _ in range(8)]
    with Client(proxy.url, till.key) as client:
        for place, card in enumerate(cards):
            sale = a_name("X")
            lock = repeated(client, LOCKS, lock_wish(till, card, sale))
            held = {"instrument_id": card.instrument_id, "lock_id": lock["lock_id"]}
            wish = {**till.key_of(sale), **held, "amount_minor": place + 1, "currency": "SEK"}
            assert repeated(client, REDEMPTIONS, wish)["balance_after_minor"] == 499 - place
    assert [hq.balance(card) for card in cards] == [499 - place for place in range(8)]
    assert min(proxy.counts[fate] for fate in Fate) > 0


def repeated(client: Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Send until there is an answer that is no 5xx, as a till does."""
    for _ in range(50):
        with contextlib.suppress(Unreachable):
            answer = client.post(path, body)
            if answer.status < 500:
                assert answer.status in (200, 201), json.dumps(dict(answer.body))
                return dict(answer.body)
        time.sleep(0)
    raise AssertionError("fifty in a row")
