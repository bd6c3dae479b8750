"""A second, independent model of how HQ settles one day of one store.

It shares no code with the service and is written in another manner on purpose, so that the
same mistake is unlikely to be made twice. Nothing here is a running total: the day is a pile
of facts (locks, postings, results by business key), and every question, such as "what is the
balance now", is answered by going through the facts again.

The model knows what the day contains and no more: redeems, locks without a grant, releases,
gift cards that are drawn down and credit memos that are used once, in full. It raises
ValueError for everything else rather than guess.

The comments "row N" point to the decision table of settlement.
"""

STORE_ID = "S001"
CODES_WITH_A_CASE = ("over_grant", "no_lock", "instrument_applied")


def open_day(instruments):
    """Return the facts at the opening of the day: instruments with a balance, nothing else."""
    day = {"instruments": {}, "known": {}, "batches": {}, "cases": {}}
    for record in instruments:
        if record["number"] in day["instruments"]:
            raise ValueError(f"number {record['number']} is there twice")
        day["instruments"][record["number"]] = {
            "kind": record["kind"],
            "currency": record["currency"],
            "opening_minor": record["amount_minor"],
            "locks": [],
            "postings": [],
        }
    return day


# Questions about the facts


def balance_of(instrument):
    """Return what is left: the opening balance less all that redeems were funded with."""
    return instrument["opening_minor"] - sum(
        posting["funded_minor"] for posting in instrument["postings"]
    )


def live_lock_of(instrument):
    """Return the lock that has not ended, or None."""
    live = [lock for lock in instrument["locks"] if lock["ended"] is None]
    if len(live) > 1:
        raise ValueError("an instrument has two live locks")
    return live[0] if live else None


def is_spent_memo(instrument):
    """Tell whether this is a credit memo that has been used, and is worth nothing for ever."""
    return instrument["kind"] == "credit_memo" and len(instrument["postings"]) > 0


def same_transaction(lock, line):
    """Tell whether a lock was taken by the transaction that a line belongs to.

    The store is not compared because this day has only one.
    """
    return (
        lock["terminal_id"] == line["terminal_id"]
        and lock["transaction_id"] == line["transaction_id"]
    )


def key_of(line):
    """Return the business key: which line this is, told online or offline."""
    return (STORE_ID, line["terminal_id"], line["transaction_id"], line["line"])


def content_of(line):
    """Return what must be equal for two lines with one key to be the same line."""
    return ("redeem", line["kind"], line["number"], line["amount_minor"], line["currency"])


def find_instrument(day, line):
    """Return the instrument that a line names, or None when HQ does not know it."""
    instrument = day["instruments"].get(line["number"])
    if instrument is not None and instrument["kind"] != line["kind"]:
        return None
    return instrument


# What happens online


def take_lock(day, event):
    """Lock an instrument if it is free. Returns: "granted" or "held_by_other"."""
    instrument = find_instrument(day, event)
    if instrument is None or balance_of(instrument) == 0:
        raise ValueError(f"the day locks only what is worth something: {event}")
    holder = live_lock_of(instrument)
    if holder is not None and same_transaction(holder, event):
        raise ValueError(f"the day does not lock twice in one transaction: {event}")
    if holder is not None:
        return "held_by_other"
    instrument["locks"].append(
        {
            "terminal_id": event["terminal_id"],
            "transaction_id": event["transaction_id"],
            "line": event["line"],
            "amount_minor": balance_of(instrument),
            "ended": None,
        }
    )
    return "granted"


def release_lock(day, event):
    """End the own lock without a posting."""
    lock = live_lock_of(find_instrument(day, event))
    if lock is None or not same_transaction(lock, event) or lock["line"] != event["line"]:
        raise ValueError(f"there is no own lock to release: {event}")
    lock["ended"] = "released"


def redeem_online(day, event):
    """Redeem under the own lock. The day has only online redeems that succeed in full."""
    result = settle_line(day, event)
    if result["outcome"] != "applied" or result["codes"] or result["shortfall_minor"]:
        raise ValueError(f"HQ would decline this online redeem: {event}")


# What comes in a batch


def post_batch(day, body):
    """Settle a batch, or answer again what was answered to the same batch before.

    Returns: one result per line, in the order of the lines in the batch.
    """
    if body["store_id"] != STORE_ID:
        raise ValueError(f"batch {body['batch_id']} is of another store")
    if body["batch_id"] in day["batches"]:
        earlier = day["batches"][body["batch_id"]]
        if earlier["body"] != body:
            raise ValueError(f"batch_id {body['batch_id']} is reused for other lines")
        return earlier["results"]
    lines = body["lines"]
    settling_order = sorted(
        range(len(lines)),
        key=lambda position: (
            lines[position]["terminal_id"],
            lines[position]["journal_id"],
            lines[position]["sequence"],
            position,
        ),
    )
    results = [None] * len(lines)
    for position in settling_order:
        results[position] = settle_line(day, lines[position])
    day["batches"][body["batch_id"]] = {"body": body, "results": results}
    return results


def settle_line(day, line):
    """Judge one line by everything that is known now, and add what follows from it."""
    if line["amount_minor"] <= 0 or line.get("operation", "redeem") != "redeem":
        raise ValueError(f"the day has only redeems of more than nothing: {line}")
    key, content = key_of(line), content_of(line)
    results_of_key = day["known"].setdefault(key, {})
    instrument = find_instrument(day, line)
    own_lock = find_own_lock(instrument, line)

    if content in results_of_key:  # row 2
        # A lock of the same transaction for another line is still needed by that line.
        if own_lock is not None and own_lock["line"] == line["line"]:
            own_lock["ended"] = "released"
        original = results_of_key[content]
        return {
            **original,
            "outcome": "duplicate",
            "original_outcome": original["outcome"],
            "opens_case": False,
        }

    if results_of_key:  # row 3
        result = held("business_key_reused")
    elif instrument is None:  # row 6
        result = held("unknown_instrument")
    elif instrument["currency"] != line["currency"]:  # row 7, the own lock is kept
        result = held("currency_mismatch")
    else:
        result = apply_redeem(instrument, own_lock, line)

    results_of_key[content] = result
    if result["opens_case"]:
        day["cases"][(key, content)] = result
    return result


def find_own_lock(instrument, line):
    """Return the live lock of the line's own transaction, or None."""
    if instrument is None:
        return None
    lock = live_lock_of(instrument)
    return lock if lock is not None and same_transaction(lock, line) else None


def held(code):
    """Return the result of a line that is kept for an administrator and posts nothing."""
    return {"outcome": "held", "codes": [code], "opens_case": True}


def apply_redeem(instrument, own_lock, line):
    """Post a redeem: how sure HQ is of its funding decides the codes, never the amount."""
    codes = []
    if own_lock is not None:
        if line["amount_minor"] > own_lock["amount_minor"]:
            codes.append("over_grant")  # row 9, otherwise row 8
        own_lock["ended"] = "consumed"
    else:
        ends = [lock["ended"] for lock in instrument["locks"] if same_transaction(lock, line)]
        if "consumed" in ends:
            raise ValueError(f"the day does not redeem twice in one transaction: {line}")
        codes.append("stale_lock" if "released" in ends else "no_lock")  # rows 11 and 13
    if is_spent_memo(instrument):
        codes.append("instrument_applied")  # row 15

    # No lock of this day carries a grant, so nobody else's lock reserves any of the balance.
    # That is why the balance can have fallen below the amount of the own lock meanwhile.
    available = balance_of(instrument)
    funded = min(line["amount_minor"], available)
    shortfall = line["amount_minor"] - funded
    if instrument["kind"] == "credit_memo" and funded < available:
        raise ValueError(f"the day uses a credit memo in full: {line}")
    instrument["postings"].append({"funded_minor": funded, "shortfall_minor": shortfall})
    return {
        "outcome": "applied",
        "codes": codes,
        "funded_minor": funded,
        "shortfall_minor": shortfall,
        "balance_after_minor": balance_of(instrument),
        "opens_case": shortfall > 0 or any(code in CODES_WITH_A_CASE for code in codes),
    }


# The day from the first event to the last


def play_event(day, event, batches):
    """Let one event happen. Returns: the results of the lines for a batch, otherwise None."""
    if event["type"] == "lock":
        answer = take_lock(day, event)
        if answer != event["expect"]:
            raise ValueError(f"this lock is {answer}: {event}")
    elif event["type"] == "redeem":
        redeem_online(day, event)
    elif event["type"] == "release":
        release_lock(day, event)
    elif event["type"] == "batch":
        return post_batch(day, batches[event["file"]])
    else:
        raise ValueError(f"unknown type of event: {event}")
    return None


def play(instruments, events, batches):
    """Play the whole day. Returns: what is expected at its end, see `expectations`."""
    day = open_day(instruments)
    results_of_file = {}
    for event in events:
        results = play_event(day, event, batches)
        if results is not None:
            results_of_file[event["file"]] = results
            if count_outcomes(results) != event["expect_outcomes"]:
                raise ValueError(f"other outcomes than the event expects: {event}")
    return expectations(day, results_of_file, batches)


def count_outcomes(results):
    """Count the lines of one batch by outcome."""
    outcomes = [result["outcome"] for result in results]
    return {name: outcomes.count(name) for name in ("applied", "duplicate", "held")}


def expectations(day, results_of_file, batches):
    """Return the end of the day in the form of `expected.json`."""
    return {
        "instruments": {
            number: instrument_at_end(instrument)
            for number, instrument in day["instruments"].items()
        },
        "totals": totals_per_currency(day),
        "cases": count_cases(day),
        "batches": {
            file: {
                "batch_id": batches[file]["batch_id"],
                "outcomes": count_outcomes(results),
                "lines": results,
            }
            for file, results in results_of_file.items()
        },
    }


def instrument_at_end(instrument):
    """Return balance, postings and lock of one instrument. The opening issue is a posting."""
    lock = live_lock_of(instrument)
    return {
        "status": "applied" if is_spent_memo(instrument) else "active",
        "balance_minor": balance_of(instrument),
        "postings": 1 + len(instrument["postings"]),
        "locked": lock is not None,
        "locked_by": lock["transaction_id"] if lock is not None else None,
    }


def totals_per_currency(day):
    """Return what was redeemed, and who gave it: the instruments or the shortfall."""
    totals = {}
    for instrument in day["instruments"].values():
        total = totals.setdefault(
            instrument["currency"], {"redeemed_minor": 0, "funded_minor": 0, "shortfall_minor": 0}
        )
        for posting in instrument["postings"]:
            total["redeemed_minor"] += posting["funded_minor"] + posting["shortfall_minor"]
            total["funded_minor"] += posting["funded_minor"]
            total["shortfall_minor"] += posting["shortfall_minor"]
    return {currency: totals[currency] for currency in sorted(totals)}


def count_cases(day):
    """Count the open cases. A case whose line has two codes counts under both of them."""
    cases = list(day["cases"].values())
    codes = [code for case in cases for code in case["codes"]]
    return {
        "total": len(cases),
        "with_shortfall": len([case for case in cases if case.get("shortfall_minor", 0) > 0]),
        "without_code": len([case for case in cases if not case["codes"]]),
        "per_code": {code: codes.count(code) for code in sorted(set(codes))},
    }
