"""The till's own store: what is in it survives, and what must not be in it is not."""

from __future__ import annotations

import contextlib
import sqlite3
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hq_service.terminal.store import (
    ENDED_SALES_KEPT,
    FILE_NAME,
    JournalEntry,
    SaleState,
    StoreRefused,
    TillStore,
)
from tests.terminal.shop import Fate, Shop

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def entry(transaction_id: str, line: int = 1) -> JournalEntry:
    return JournalEntry(transaction_id, line, "redeem", "an-instrument", NOW, 10_00, "SEK")


def store_in(directory: Path) -> TillStore:
    return TillStore(directory, "S1", "T1")


def test_the_first_start_makes_the_offline_database_and_later_ones_find_it(tmp_path: Path) -> None:
    directory = tmp_path / "not" / "there" / "yet"
    with store_in(directory) as made:
        assert made.path.is_file()
        assert (made.store_id, made.terminal_id, made.journal()) == ("S1", "T1", [])
        made.write([entry("X1")])
    with TillStore(directory) as found:
        assert (found.store_id, found.terminal_id) == ("S1", "T1")
        assert [line["transaction_id"] for line in found.journal()] == ["X1"]


def test_the_journal_is_numbered_without_gaps_and_keeps_its_name(tmp_path: Path) -> None:
    with store_in(tmp_path) as store:
        store.write([entry("X1"), entry("X1", 2)])
        with contextlib.suppress(RuntimeError), store.writing():
            store.write([entry("X2")])
            raise RuntimeError
        journal_id = store.journal_id
    with store_in(tmp_path) as store:
        store.write([entry("X3")])
        journal = store.journal()
        assert [line["sequence"] for line in journal] == [1, 2, 3]
        assert {line["journal_id"] for line in journal} == {journal_id} == {store.journal_id}
        pending = store.pending()
        assert (pending.transactions_count, pending.lines_count) == (2, 3)
        assert pending.amounts_minor == {"SEK": 30_00}
        assert pending.oldest_at == NOW


def test_two_stores_never_name_a_sale_or_a_journal_alike(tmp_path: Path) -> None:
    with store_in(tmp_path / "old") as old, store_in(tmp_path / "new") as new:
        assert old.journal_id != new.journal_id
        names = {store.begin_sale(None, NOW).transaction_id for store in (old, new)}
        assert len(names) == 2


def test_every_write_is_on_disk_before_anything_is_sent(tmp_path: Path) -> None:
    with store_in(tmp_path) as store:
        assert store._rows("PRAGMA synchronous") == [(2,)]  # FULL
        assert store._rows("PRAGMA journal_mode") == [("wal",)]


def test_a_batch_keeps_its_id_and_its_bytes_until_it_is_answered(tmp_path: Path) -> None:
    with store_in(tmp_path) as store:
        store.write([entry("X1"), entry("X2"), entry("X3")])
        first = store.batch_under_way(2, 100)
        store.write([entry("X4")])
        assert store.batch_under_way(2, 100) == first
    with store_in(tmp_path) as store:
        assert store.batch_under_way(9, 100) == first
        assert first is not None
        store.batch_answered(first.batch_id)
        second = store.batch_under_way(9, 100)
        assert second is not None
        assert (first.lines_count, second.lines_count) == (2, 2)
        assert second.batch_id != first.batch_id


def test_only_what_is_acknowledged_is_purged_and_only_if_it_was_sent(tmp_path: Path) -> None:
    with store_in(tmp_path) as store:
        store.write([entry("X1"), entry("X2"), entry("X3"), entry("X4")])
        batch = store.batch_under_way(3, 100)
        assert batch is not None
        assert store.acknowledge(4, [], NOW) == 0
        store.batch_answered(batch.batch_id)
        assert store.acknowledge(2, [], NOW) == 2
        assert [line["sequence"] for line in store.journal()] == [3, 4]
        assert store.acknowledge(2, [(3, 3)], NOW) == 0
        again = store.batch_under_way(9, 100)
        assert again is not None
        assert again.lines_count == 2


def test_ended_sales_are_forgotten_when_hq_has_them_and_nobody_asks_any_more(
    tmp_path: Path,
) -> None:
    with store_in(tmp_path) as store:
        for name in ("X1", "X2"):
            sale = store.begin_sale(name, NOW)
            sale.state, sale.ended_at = SaleState.CONCLUDED_OFFLINE, NOW
            store.save_sale(sale)
        store.write([entry("X2")])
        store.acknowledge(0, [], NOW + ENDED_SALES_KEPT)
        assert store.sale("X1") is not None
        store.acknowledge(0, [], NOW + ENDED_SALES_KEPT + timedelta(seconds=1))
        assert store.sale("X1") is None
        assert store.sale("X2") is not None


def test_a_second_opening_is_refused_with_a_sentence(tmp_path: Path) -> None:
    sentence = "in use by another process: end that till"
    with store_in(tmp_path), pytest.raises(StoreRefused, match=sentence):
        store_in(tmp_path)
    store_in(tmp_path).close()


def test_what_is_not_this_tills_store_is_refused_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(StoreRefused, match="There is no till's store"):
        TillStore(tmp_path)
    store_in(tmp_path / "one").close()
    with pytest.raises(StoreRefused, match="a directory of its own"):
        TillStore(tmp_path / "one", "S1", "T2")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / FILE_NAME).write_text("no database at all, but long enough to be read")
    with pytest.raises(StoreRefused, match="is no till's store"):
        store_in(tmp_path / "text")


def test_a_store_of_a_newer_program_is_refused(tmp_path: Path) -> None:
    store_in(tmp_path).close()
    database = sqlite3.connect(tmp_path / FILE_NAME)
    database.execute("PRAGMA user_version = 2")
    database.close()
    with pytest.raises(StoreRefused, match="open it with the program that wrote it"):
        store_in(tmp_path)


def test_the_store_is_for_the_tills_account_only(tmp_path: Path) -> None:
    with store_in(tmp_path / "till"):
        files = list((tmp_path / "till").iterdir())
        assert files
        assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
        assert stat.S_IMODE((tmp_path / "till").stat().st_mode) == 0o700


def test_no_card_number_is_ever_at_rest(shop: Shop) -> None:
    till, memo, lost = shop.till(), shop.card(100_00, "credit_memo"), shop.card(100_00)
    card = shop.card(100_00)
    sale = till.terminal.begin_sale()
    sale.redeem("gift_card", card.number, 10_00)
    issued = sale.issue("gift_card", 25_00, "SEK")
    memo_line = sale.redeem("credit_memo", memo.number, 10_00)
    sale.refund(shop.card(1).number, 5, reason=f"card {card.number} was torn")
    receipt = sale.conclude()
    again = till.terminal.begin_sale()
    again.redeem("gift_card", card.number, 10_00)
    till.line.always = Fate.REQUEST_LOST
    with pytest.raises(Exception, match="did not tell") as refused:
        again.redeem("gift_card", lost.number, 10_00)
    again.conclude()
    remainder = next(one for one in receipt.lines if one.line == memo_line.line).remainder_number
    numbers = [card.number, memo.number, lost.number, issued.made_number, remainder]
    assert all(numbers)
    told = "".join(map(repr, [receipt, issued, again.lines, till.warnings, refused.value]))
    for path in till.directory.iterdir():
        content = path.read_bytes()
        for number in numbers:
            assert str(number).encode() not in content, path.name
            assert str(number) not in told
