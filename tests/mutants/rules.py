"""Defects of the rules: what somebody might write who has not met the counter-example yet.

The unit tests and the schedules in memory find them; no database is needed.
"""

from __future__ import annotations

from tests.mutants.mutant import Mutant

JUDGEMENT = "hq_service/domain/judgement.py"
SETTLEMENT = "hq_service/domain/settlement.py"
LOCKING = "hq_service/domain/locking.py"
MODEL = "hq_service/domain/model.py"
OUTCOMES = "hq_service/domain/outcomes.py"
BATCHES = "hq_service/operations/offline_batches.py"

SELECTION = (
    "tests/unit/test_judge.py",
    "tests/unit/test_locking.py",
    "tests/unit/test_settle.py",
    "tests/unit/test_counter_examples.py",
    "tests/unit/test_schedules_in_memory.py",
)


def rule(name: str, what: str, file: str, old: str, new: str) -> Mutant:
    return Mutant(name, what, file, old, new, SELECTION)


RULES = (
    # Known keys.
    rule(
        "idempotency-forgets-after-a-day",
        "A business key is known for a day, like the idempotency keys of most services.",
        JUDGEMENT,
        "    if results:\n        original",
        "    is_recent = line.concluded_at is None or (\n"
        "        context.received_at - line.concluded_at < timedelta(days=1)\n"
        "    )\n"
        "    if results and is_recent:\n        original",
    ),
    rule(
        "content-ignores-the-amount",
        "Whatever comes under a known key on the same card is a repeat; nobody compares amounts.",
        MODEL,
        "            self.operation, self.instrument_id, self.amount_minor, self.currency,"
        " self.original\n        )\n\n\n_VOID_STATUSES",
        "            self.operation, self.instrument_id, 0, self.currency,"
        " self.original\n        )\n\n\n_VOID_STATUSES",
    ),
    rule(
        "a-reused-key-is-a-repeat",
        "A known key is a duplicate whatever its content: the first version wins, unasked.",
        JUDGEMENT,
        "original = results.get(line.content)",
        "original = results.get(line.content) or next(iter(results.values()))",
    ),
    rule(
        "a-held-line-is-not-remembered",
        "Only what was posted makes its key known; a held line is judged anew each time.",
        SETTLEMENT,
        "if judgement.posts or judgement.outcome is Outcome.HELD:",
        "if judgement.posts:",
    ),
    rule(
        "a-repeat-keeps-its-lock",
        "A duplicate changes nothing at all, so a lock that was taken for it stays for ever.",
        JUDGEMENT,
        "Judgement(Outcome.DUPLICATE, lock_effect=LockEffect.RELEASED, original=original)",
        "Judgement(Outcome.DUPLICATE, lock_effect=LockEffect.KEPT, original=original)",
    ),
    # Locks.
    rule(
        "a-repeat-releases-whatever-lock-there-is",
        "A line that releases frees the card, whoever has locked it in the meantime.",
        SETTLEMENT,
        "if lock is None or lock.key != line.key or line.lock_id not in (None, lock.lock_id):",
        "if lock is None:",
    ),
    rule(
        "a-repeat-releases-the-locks-of-its-transaction",
        "A line releases its transaction's lock on the card, also one taken for a later line.",
        SETTLEMENT,
        "if lock is None or lock.key != line.key or line.lock_id not in (None, lock.lock_id):",
        "if lock is None or not lock.belongs_to(line.key):",
    ),
    rule(
        "a-release-that-comes-again-releases-again",
        "A release makes no key known, so each time it comes it frees what is locked by then.",
        SETTLEMENT,
        "return is_unnamed and self.has_arrived(line.place)",
        "return False",
    ),
    rule(
        "a-tills-locks-are-all-its-own",
        "The own lock is the till's, whatever transaction it was taken for.",
        MODEL,
        "            self.transaction_id == key.transaction_id\n            and self.terminal_id",
        "            self.terminal_id",
    ),
    rule(
        "a-lease-that-ends-frees-a-granted-lock",
        "A silent terminal has lost its lock, although it may be spending it offline.",
        LOCKING,
        "return LockState.LAPSED if lock.grant_until is None else LockState.SUSPECT",
        "return LockState.LAPSED",
    ),
    rule(
        "a-horizon-frees-although-it-is-sticky",
        "A grant that ran out has ended its lock, whatever the parameter says.",
        LOCKING,
        "        lock.grant_until is not None and parameters.on_horizon == RELEASE"
        " and now > lock.grant_until\n",
        "        lock.grant_until is not None and now > lock.grant_until\n",
    ),
    rule(
        "a-broken-lock-is-as-good-as-the-own",
        "The late line of a broken lock settles as if nobody had broken it: no code, no case.",
        JUDGEMENT,
        "Code.LOCK_BROKEN if gone.end == LockEnd.BROKEN else Code.STALE_LOCK",
        "None if gone.end == LockEnd.BROKEN else Code.STALE_LOCK",
    ),
    rule(
        "a-stale-lock-is-rejected",
        "A late line whose lock is gone posts nothing, as its online command would not.",
        JUDGEMENT,
        "    return _fund(line, instrument, proof, known, context)",
        "    if proof.code in (Code.STALE_LOCK, Code.LOCK_BROKEN):\n"
        "        return Judgement(Outcome.APPLIED, (proof.code,))\n"
        "    return _fund(line, instrument, proof, known, context)",
    ),
    rule(
        "a-spent-lock-funds-another-line",
        "Row 10 is left out: who names a lock that was spent is paid like anybody else.",
        JUDGEMENT,
        "if lock_id is not None and known.is_spent(line.instrument_id, lock_id, line.key):  # 10",
        "if False:",
    ),
    rule(
        "a-lock-that-was-spent-on-another-card-counts",
        "Row 10 asks whether a lock was spent, and not on which instrument.",
        JUDGEMENT,
        "return self.consumed_locks.get((instrument_id, lock_id), key) != key",
        "return any(\n"
        "            spent == lock_id and by != key"
        " for (_, spent), by in self.consumed_locks.items()\n"
        "        )",
    ),
    rule(
        "a-grant-may-fund-two-lines",
        "Row 10 looks at the lock that the line names, and not at the one of its grant.",
        JUDGEMENT,
        "for lock_id in (line.lock_id, grant.lock_id if grant else None):",
        "for lock_id in (line.lock_id,):",
    ),
    rule(
        "a-grant-is-good-for-any-transaction",
        "A grant that HQ signed is good, whichever sale of the till shows it.",
        JUDGEMENT,
        "        grant.key[:3] == line.key[:3]\n        and ",
        "        ",
    ),
    # Money.
    rule(
        "anothers-grant-reserves-nothing",
        "Who comes first takes it all; a holder offline will find out.",
        JUDGEMENT,
        "return max(0, instrument.balance_minor - reserved_minor)",
        "return instrument.balance_minor",
    ),
    rule(
        "a-shortfall-is-clamped-away",
        "What the balance cannot fund is dropped: the balance stops at zero and nobody is asked.",
        JUDGEMENT,
        "shortfall_minor=line.amount_minor - funded_minor,",
        "shortfall_minor=0,",
    ),
    rule(
        "a-balance-may-go-below-zero",
        "A debit is funded in full, and the balance goes below zero.",
        JUDGEMENT,
        "funded_minor = min(line.amount_minor, available_minor(instrument, line.key, context))",
        "funded_minor = line.amount_minor",
    ),
    rule(
        "a-shortfall-has-no-case",
        "A shortfall is booked, and nobody is told of it.",
        OUTCOMES,
        "            or self.shortfall_minor > 0\n",
        "",
    ),
    rule(
        "a-closed-instrument-is-funded",
        "What is left on a closed or used instrument is spent all the same.",
        JUDGEMENT,
        "_WORTH_NOTHING = frozenset({InstrumentStatus.CLOSED, InstrumentStatus.APPLIED})",
        "_WORTH_NOTHING: frozenset[str] = frozenset()",
    ),
    rule(
        "credits-need-a-lock",
        "A credit whose lock is gone is held: money for nobody is not given away.",
        JUDGEMENT,
        "    if hindrance is not None:\n",
        "    if proof.code is not None and line.operation in CREDITS:\n"
        "        hindrance = hindrance or Code.STALE_LOCK\n"
        "    if hindrance is not None:\n",
    ),
    rule(
        "a-remainder-stays-on-its-memo",
        "A memo that is used in part keeps the rest, and can be used again.",
        SETTLEMENT,
        'if memo.balance_minor and (partial_use == "retain" or memo.remainder_id is not None):',
        "if memo.balance_minor:",
    ),
    rule(
        "a-remainder-is-forfeited",
        "A memo is used once; its rest is nobody's.",
        SETTLEMENT,
        '        if partial_use == "forfeit":',
        '        if partial_use != "retain":',
    ),
    # Voids.
    rule(
        "a-tombstone-is-ignored",
        "A line that arrives after its void is posted: nothing was there to be voided.",
        JUDGEMENT,
        "    if key in known.voided:  # 4\n",
        "    if key in known.voided and not context.is_offline:  # 4\n",
    ),
    rule(
        "a-void-of-nothing-leaves-nothing",
        "A void of a key that HQ does not know yet has no effect, now or later.",
        JUDGEMENT,
        "    if posted is None:\n"
        "        return Judgement(\n"
        "            Outcome.APPLIED, (Code.VOIDED,), lock_effect=LockEffect.RELEASED,"
        " voids=True\n",
        "    if posted is None:\n"
        "        return Judgement(\n"
        "            Outcome.APPLIED, (Code.VOIDED,), lock_effect=LockEffect.RELEASED\n",
    ),
    rule(
        "a-void-of-a-spent-load-goes-below-zero",
        "A void takes back what was loaded, also if it is spent.",
        JUDGEMENT,
        "    funded_minor = min(content.amount_minor, available)\n",
        "    funded_minor = content.amount_minor\n",
    ),
    rule(
        "a-void-of-a-spent-load-is-clamped",
        "A void takes back what is left of a load, and nobody is told of the rest.",
        JUDGEMENT,
        "shortfall_minor=content.amount_minor - funded_minor,",
        "shortfall_minor=0,",
    ),
    rule(
        "a-void-leaves-its-case-open",
        "A void gives the money back; who shall close the case of a shortfall is another matter.",
        SETTLEMENT,
        "                self.settlement.closed_cases[told.case_id] = told.outcome\n",
        "                pass\n",
    ),
    # Order.
    rule(
        "the-order-is-that-of-the-array",
        "A batch is settled as it is written, not in the order of the tills' journals.",
        BATCHES,
        "    return (*line.place, line.position)\n",
        '    return ("", "", 0, line.position)\n',
    ),
    rule(
        "a-fold-forgets-what-it-spent",
        "Which locks are spent is read from the database, once for each chunk.",
        SETTLEMENT,
        "            self.known.consumed_locks[spent] = line.key\n",
        "            pass\n",
    ),
)
