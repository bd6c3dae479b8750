"""Stores and registers that something is made for."""

from __future__ import annotations

from hq_service.store import registers


def place_faults(store_id: str | None, terminal_id: str | None) -> dict[str, str]:
    """Return what is wrong with the store and register that somebody names: member to sentence;
    empty if they are there and in use, or none is named.
    """
    if store_id is None:
        return {}
    store = registers.read_store(store_id)
    if store is None or store.retired_at is not None:
        return {"store_id": "is not a store" if store is None else "is a retired store"}
    if terminal_id is None:
        return {}
    register = registers.read_register(store_id, terminal_id)
    if register is None or register.retired_at is not None:
        fault = "is not a register of this store" if register is None else "is a retired register"
        return {"terminal_id": fault}
    return {}
