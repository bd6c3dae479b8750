"""The till: sales with and without HQ, over a store of its own.

with Terminal(url, key, directory, "S001", "T01", on_warning=show) as till:
    sale = till.begin_sale()
    sale.redeem("gift_card", number, 150_00)
    receipt = sale.conclude()
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hq_service.domain.model import BusinessKey
from hq_service.domain.reading import is_identifier
from hq_service.terminal.client import Client, Unreachable
from hq_service.terminal.link import ConnectionStatus, Link, SwitchWarning
from hq_service.terminal.refusals import NotPossible, Refused
from hq_service.terminal.sale import Counter, Sale
from hq_service.terminal.setup import Setup
from hq_service.terminal.store import SaleState, StoredSale, TillStore


def utc_now() -> datetime:
    """Return the time, with its zone."""
    return datetime.now(UTC)


class Terminal:
    """One register, while it runs. Its store is opened for it alone.

    ``on_warning`` is called before the till switches to offline, if the offline profile says so;
    with advanced offline switching also by the thread of the `Synchroniser`.
    ``client`` replaces the connection to ``url``, for tests and simulations.

    Raises:  StoreRefused when the store is another till's, in use, or not readable.
    """

    def __init__(
        self,
        url: str,
        key: str,
        directory: Path,
        store_id: str,
        terminal_id: str,
        *,
        on_warning: Callable[[SwitchWarning], None] | None = None,
        clock: Callable[[], datetime] = utc_now,
        client: Client | None = None,
    ) -> None:
        self.clock = clock
        self.store = TillStore(directory, store_id, terminal_id)
        self.setup = Setup(self.store, clock)
        self.client = client or Client(url, key)
        self.link = Link(self.client, self.store, self.setup, clock, on_warning)
        self._counter = Counter(self.store, self.link, self.setup, clock)
        self._listeners: list[Callable[[], None]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the till; what is not finished is found again by the next one on its directory."""
        self.client.close()
        self.store.close()

    def begin_sale(self, transaction_id: str | None = None) -> Sale:
        """Begin a transaction, under a name of its own for ever; without one the till makes it.

        An offline till tries to connect again here, and nowhere else, if its interval is over.

        Raises:  NotPossible while another sale is not finished, or under a name that was used.
        """
        unfinished = self.store.unfinished_sale()
        if unfinished is not None:
            raise NotPossible(
                "unfinished_sale",
                f"Transaction {unfinished.transaction_id} is not finished: conclude or void it"
                " first; after a restart resume() gives it back.",
            )
        if transaction_id is not None and not is_identifier(transaction_id):
            raise NotPossible(
                "not_a_name", "A transaction's name has 1 to 64 letters, digits or . _ : -"
            )
        if self.link.reconnect_if_due():
            self._tell_listeners()
        self._refresh_setup()
        try:
            return self._sale(self.store.begin_sale(transaction_id, self.clock()))
        except ValueError:
            raise NotPossible(
                "name_was_used",
                f"There was a transaction {transaction_id} before: give each a name of its own.",
            ) from None

    def resume(self) -> Sale | None:
        """Return the sale that the process before this one did not finish; None without one.

        A sale that was being voided is voided now. One that was being concluded is in the state
        ``concluding``: ``conclude()`` repeats exactly what was sent, ``void()`` undoes it.

        Raises:  Refused.
        """
        unfinished = self.store.unfinished_sale()
        if unfinished is None:
            return None
        sale = self._sale(unfinished)
        sale.resume()
        return None if sale.state is SaleState.VOIDED else sale

    def find_sale(self, transaction_id: str) -> Sale | None:
        """Return a sale of this till, for its receipt or to void it; None if it is not known."""
        stored = self.store.sale(transaction_id)
        return self._sale(stored) if stored is not None else None

    def key_of(self, sale: Sale, line_number: int) -> BusinessKey:
        """Return the business key of a line: what a linked refund names as its original."""
        names = self.store.store_id, self.store.terminal_id
        return BusinessKey(*names, sale.transaction_id, line_number)

    def balance(self, kind: str, number: str) -> dict[str, Any]:
        """Ask for a balance, for information.

        Raises:  NotPossible while the till is offline; Refused.
        """
        asked = self.link.ask("POST", "/v1/balance-inquiries", {"kind": kind, "number": number})
        if asked.answer is None:
            raise NotPossible("offline", "The till is offline: a balance cannot be asked for.")
        if asked.answer.is_problem:
            raise Refused(asked.answer)
        return dict(asked.answer.body)

    # --- the connection -------------------------------------------------------------------------

    def connection_status(self) -> ConnectionStatus:
        """Return what the status header and the window Connection status show."""
        return self.link.status()

    def disconnect(self, *, is_signed_in: bool = True) -> ConnectionStatus:
        """Operation 917, button Disconnect: work without HQ until `connect`.

        Raises:  NotPossible before anybody has signed in, unless the offline profile allows it.
        """
        profile = self.setup.profile
        if not is_signed_in and not profile["allow_manual_switch_to_offline_before_sign_in"]:
            raise NotPossible(
                "not_signed_in", "The offline profile wants somebody to sign in before switching."
            )
        self.link.disconnect()
        return self.link.status()

    def connect(self) -> ConnectionStatus:
        """Operation 917, button Connect: try to work with HQ again, now."""
        if self.link.connect():
            self._tell_listeners()
        return self.link.status()

    def check_health(self, client: Client) -> None:
        """Ask whether HQ is well, and switch to offline or back: advanced offline switching.

        For a thread beside the sales, with a client of its own; a `Synchroniser` does it.
        """
        if self.link.check_health(client):
            self._tell_listeners()

    def when_connected(self, listener: Callable[[], None]) -> None:
        """Call somebody whenever the till has come back to HQ."""
        self._listeners.append(listener)

    def _tell_listeners(self) -> None:
        for listener in self._listeners:
            listener()

    def _refresh_setup(self) -> None:
        """Fetch the parameters if the copy is too old: by them HQ grants what is locked next."""
        if not self.link.is_online or not self.setup.is_stale:
            return
        self.client.wait_at_most(self.setup.profile["time_out_interval_seconds"])
        try:
            self.setup.fetch(self.client)
        except Unreachable as error:
            self.link.go_offline_between_sales(str(error))
        except Refused:
            return  # the first lock is refused by the same key, and says why

    def _sale(self, stored: StoredSale) -> Sale:
        return Sale(stored, self._counter)
