"""Defects of the SQL and of what is around it; only a real PostgreSQL shows them."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

SQL = "hq_service/store/sql"
SETTLEMENTS = "hq_service/store/settlements.py"
DATABASE = "hq_service/store/database.py"
WRITE_LESS = "migrations/versions/0007_write_less.py"

GUARDS = "tests/concurrency/test_what_the_database_guards.py"
RACES = "tests/concurrency/test_races.py"
ONE_KEY_ON_TWO_CARDS = (
    f"{RACES}::test_of_one_key_redeemed_on_two_cards_of_one_bucket_at_once_one_is_refused",
)
REPEATS = "tests/integration/test_repeated_lines.py"
ANSWERED_QUESTION = (
    f"{GUARDS}::test_a_question_that_was_answered_is_not_asked_again_when_its_line_comes_again",
)
READ_WITH_THE_KEYS = """\
        voided = connection.execute(statement("read_voids_by_key"), keys)
        if refundable:
            refunded = connection.execute(statement("read_refunded"), _key_arrays(refundable))
            known.refunded_minor = {BusinessKey(*row[:4]): row[4] for row in refunded.fetchall()}
"""

STORE = (
    # Row locks.
    Mutant(
        "rows-are-locked-in-no-order",
        "The cards of a chunk are locked in whatever order the planner reads them.",
        f"{SQL}/load_instruments_for_update.sql",
        " ORDER BY instrument.instrument_id\n",
        "",
        (f"{GUARDS}::test_rows_are_locked_by_id_also_where_a_plan_would_read_them_otherwise",),
    ),
    Mutant(
        "rows-are-not-locked",
        "A chunk reads its cards and trusts that nobody changes them before it writes.",
        f"{SQL}/load_instruments_for_update.sql",
        "   FOR UPDATE OF instrument\n",
        "",
        (f"{RACES}::test_of_a_release_and_a_redemption_that_race_the_first_wins", GUARDS, RACES),
    ),
    Mutant(
        "keys-are-read-before-the-row-locks",
        "What is known of the keys is read first: one round trip, and a racing repeat is unseen.",
        SETTLEMENTS,
        "    with connection.pipeline():\n"
        "        locked = instruments.load(connection, wanted, for_update=for_update)\n"
        f"{READ_WITH_THE_KEYS}        known.results = _read_results(connection, keys)\n",
        "    known.results = _read_results(connection, keys)\n"
        "    with connection.pipeline():\n"
        "        locked = instruments.load(connection, wanted, for_update=for_update)\n"
        f"{READ_WITH_THE_KEYS}",
        (
            f"{GUARDS}::test_a_chunk_that_waited_for_a_card_knows_what_was_posted_meanwhile",
            f"{RACES}::test_a_batch_and_an_online_redemption_of_one_key_post_once",
        ),
    ),
    Mutant(
        "a-repeat-never-frees-a-lock",
        "What is posted is posted: a line that comes again is looked up, and that is all.",
        f"{SQL}/read_repeats.sql",
        " WHERE NOT EXISTS (SELECT 1\n",
        " WHERE true OR EXISTS (SELECT 1\n",
        (f"{REPEATS}::test_a_repeat_frees_the_lock_of_its_own_line_and_no_other",),
    ),
    Mutant(
        "a-repeat-is-known-by-its-key",
        "A line whose number and key have arrived is a repeat, whatever it says.",
        SETTLEMENTS,
        "        if content == (*row[1:5], original):\n",
        "        if content:\n",
        (f"{REPEATS}::test_another_sale_under_the_number_and_the_key_of_one_that_arrived_is_held",),
    ),
    Mutant(
        "the-original-of-a-refund-is-not-locked",
        "A refund locks the card that it pays to; two of them pay one sale back twice.",
        SETTLEMENTS,
        "            wanted |= {content.instrument_id for content in contents}\n",
        "            wanted |= set()\n",
        (f"{GUARDS}::test_a_refund_waits_for_another_refund_of_the_same_line_to_another_card",),
    ),
    Mutant(
        "a-case-is-not-locked",
        "Two administrators resolve one case at once, and both are told that they did.",
        f"{SQL}/lock_case.sql",
        "   FOR UPDATE\n",
        "",
        (f"{GUARDS}::test_of_two_administrators_who_cover_one_shortfall_at_once_one_is_told",),
    ),
    # The guards of a lock.
    Mutant(
        "a-lock-is-given-whoever-has-it-by-now",
        "A lock is given on what was read, also if another till was faster.",
        f"{SQL}/set_lock.sql",
        "   AND lock_id IS NOT DISTINCT FROM %(seen_lock_id)s::uuid\n",
        "",
        (f"{RACES}::test_of_two_tills_that_lock_a_card_at_once_one_wins",),
    ),
    Mutant(
        "a-lock-is-worth-what-was-read",
        "A lock that waited for a sale is given with the balance from before it.",
        f"{SQL}/set_lock.sql",
        "   AND version = %(seen_version)s\n",
        "",
        (f"{RACES}::test_a_lock_request_that_waited_while_a_batch_took_from_the_card_knows_of_it",),
    ),
    # Unique keys and conflicts.
    Mutant(
        "the-unique-key-is-dropped",
        "The rules see to it that a key is posted once; the schema need not.",
        WRITE_LESS,
        "CREATE UNIQUE INDEX uq_postings_business_key\n",
        "CREATE INDEX uq_postings_business_key\n",
        ONE_KEY_ON_TWO_CARDS,
    ),
    Mutant(
        "a-key-that-slipped-in-is-an-error",
        "A unique violation is a defect and not a race: the operation is not tried again.",
        DATABASE,
        '_RETRYABLE = (_BUSY - {"57014"}) | {"23505"}',
        '_RETRYABLE = _BUSY - {"57014"}',
        ONE_KEY_ON_TWO_CARDS,
    ),
    Mutant(
        "a-case-that-is-there-is-an-error",
        "No line opens a case twice, so nothing is done about one that is there.",
        f"{SQL}/insert_cases.sql",
        "    ON CONFLICT (case_id) DO NOTHING\n",
        "",
        ANSWERED_QUESTION,
    ),
    Mutant(
        "a-case-is-opened-again",
        "A line that comes again opens its case again, answered or not.",
        f"{SQL}/insert_cases.sql",
        "    ON CONFLICT (case_id) DO NOTHING\n",
        "    ON CONFLICT (case_id) DO UPDATE\n"
        "   SET resolution = NULL, resolved_at = NULL, resolved_by = NULL,\n"
        "       resolution_reason = NULL\n",
        ANSWERED_QUESTION,
    ),
    Mutant(
        "a-displaced-lock-stays-on-the-list",
        "The list of live locks keeps the lock that was there first.",
        f"{SQL}/insert_live_lock.sql",
        "   SET lock_id = excluded.lock_id,\n",
        "   SET lock_id = live_locks.lock_id,\n",
        (f"{RACES}::test_a_lapsed_lock_is_taken_over_by_one_of_many",),
    ),
)
