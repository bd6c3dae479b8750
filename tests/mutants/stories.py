"""Defects of what follows a line: voids, doubts about locks and grants, and what lines leave open.

Each is found by the story of somebody who was harmed by it, told over HTTP in
``tests/integration`` and ``tests/concurrency``.
"""

from __future__ import annotations

from tests.mutants.mutant import Mutant

JUDGEMENT = "hq_service/domain/judgement.py"
SETTLEMENT = "hq_service/domain/settlement.py"
LOCKING = "hq_service/domain/locking.py"
BATCHES = "hq_service/operations/offline_batches.py"
SETTLEMENTS = "hq_service/store/settlements.py"
SQL = "hq_service/store/sql"

UNDOING = "tests/integration/test_undoing.py"
LOCKED_FOR = "tests/integration/test_what_a_lock_was_for.py"
AFTER_APPLY = "tests/integration/test_cases_after_apply.py"
WAITING = "tests/integration/test_waiting_lines.py"
POISON = "tests/integration/test_poison_lines.py"
VOID_AGAINST_LOCK = "tests/concurrency/test_void_against_lock.py"


def story(name: str, what: str, file: str, old: str, new: str, told_in: str, *tests: str) -> Mutant:
    return Mutant(name, what, file, old, new, tuple(f"{told_in}::test_{test}" for test in tests))


VOIDS = (
    story(
        "a-void-gives-back-what-a-refund-did",
        "A void gives back what its line took, also if the customer has been refunded already.",
        JUDGEMENT,
        "result.funded_minor + recovered_minor - known.refunded_minor.get(key, 0)",
        "result.funded_minor + recovered_minor",
        UNDOING,
        "a_line_that_was_refunded_in_full_has_nothing_left_to_give_back",
        "a_line_that_was_refunded_in_part_gives_back_the_rest",
        "a_refunded_sale_that_turns_out_voided_in_a_batch_gives_back_the_rest",
    ),
    story(
        "a-void-takes-back-a-refund-that-was-counted",
        "The void of a refund takes its money back, also if the void of the sale gave back less.",
        JUDGEMENT,
        "    if content.original is not None and content.original in known.voided:\n",
        "    if False:\n",
        UNDOING,
        "a_refund_whose_original_was_voided_is_voided_without_taking_anything",
    ),
    story(
        "a-refund-that-was-voided-still-counts",
        "What a refund gave back is counted for good, also if the refund itself is voided.",
        f"{SQL}/read_refunded.sql",
        "WHEN 'reversal' THEN -refund.amount_minor",
        "WHEN 'reversal' THEN 0",
        UNDOING,
        "a_sale_gives_back_everything_once_its_refund_is_voided",
    ),
    story(
        "money-comes-back-to-a-closed-card-as-it-is",
        "A void gives the money back and leaves the card closed, as somebody has made it.",
        SETTLEMENT,
        "    InstrumentStatus.CLOSED: InstrumentStatus.BLOCKED,\n",
        "",
        UNDOING,
        "money_that_comes_back_to_a_closed_instrument_is_blocked_and_told",
        "money_that_comes_back_to_a_closed_card_in_a_batch_stops_no_other_line",
    ),
    story(
        "money-comes-back-to-a-used-memo-as-it-is",
        "A void gives the money back to a used memo, which stays used.",
        SETTLEMENT,
        "    InstrumentStatus.APPLIED: InstrumentStatus.ACTIVE,\n",
        "",
        UNDOING,
        "a_used_memo_to_which_money_comes_back_is_good_again",
    ),
    story(
        "nobody-is-told-that-money-came-to-a-closed-card",
        "Money that comes back to a closed card is kept there; nobody is asked where it goes.",
        JUDGEMENT,
        "codes.append(Code.INSTRUMENT_CLOSED)  # somebody",
        "pass  # somebody",
        UNDOING,
        "money_that_comes_back_to_a_closed_instrument_is_blocked_and_told",
    ),
    story(
        "the-void-of-its-issue-makes-any-card-pending",
        "A card whose issue is voided is pending again, whatever was done with it since.",
        SETTLEMENT,
        "if undone.operation == Operation.ISSUE and is_unused:",
        "if undone.operation == Operation.ISSUE:",
        UNDOING,
        "a_redemption_is_given_back_to_a_card_whose_issue_was_voided",
        "the_issue_and_the_redemption_of_a_card_are_voided_in_one_batch_with_a_good_line",
        "a_sale_is_voided_before_the_issue_that_paid_for_it",
        "an_issue_by_mistake_onto_a_card_in_use_is_undone_and_the_card_stays_in_use",
    ),
    story(
        "a-reversal-of-nothing-makes-a-memo-good",
        "A used memo is good again when one of its lines is voided, also if nothing came back.",
        SETTLEMENT,
        "        if instrument.balance_minor:\n            instrument.status = _HOLDS_MONEY_AS",
        "        if True:\n            instrument.status = _HOLDS_MONEY_AS",
        UNDOING,
        "the_void_of_a_line_that_a_used_memo_gave_nothing_makes_it_no_good_one",
        "the_void_of_the_issue_of_a_used_memo_leaves_its_number_leading_on",
    ),
    story(
        "a-second-remainder-overwrites-the-first",
        "A memo that is used in part again gets a new remainder; the old number leads to that one.",
        SETTLEMENT,
        'if memo.balance_minor and (partial_use == "retain" or memo.remainder_id is not None):',
        'if memo.balance_minor and partial_use == "retain":',
        UNDOING,
        "a_reversed_memo_keeps_what_its_next_use_leaves",
        "a_memo_that_is_used_up_again_and_reversed_again_has_one_remainder",
    ),
    story(
        "what-was-forfeited-stays-forfeited",
        "A void gives back what the line took; what the memo lost by it is gone.",
        JUDGEMENT,
        "        restored_minor=result.forfeited_minor,\n",
        "",
        UNDOING,
        "what_was_forfeited_of_a_memo_comes_back_with_what_it_paid",
        "what_was_forfeited_of_a_memo_comes_back_although_its_sale_was_refunded",
    ),
    story(
        "a-void-does-not-remember-what-it-came-to",
        "A void that comes again is answered as one of nothing: its key is void, that is all.",
        SETTLEMENTS,
        "    if operation is None:  # there was nothing to reverse\n",
        "    if True:\n",
        UNDOING,
        "a_void_that_comes_again_is_answered_like_the_first",
        "the_void_of_a_spent_load_that_comes_again_names_the_same_case",
        "the_void_of_a_closed_card_that_comes_again_opens_no_second_case",
    ),
    story(
        "a-void-forgets-what-it-came-to-within-its-chunk",
        "A void that comes twice in one batch is answered the second time as one of nothing.",
        SETTLEMENT,
        "        self.known.voided[line.key] = result\n",
        "        self.known.voided[line.key] = LineResult(Outcome.APPLIED, (Code.VOIDED,))\n",
        UNDOING,
        "a_void_in_a_batch_that_comes_again_is_a_duplicate_of_the_first",
    ),
    story(
        "an-absorbed-loss-stays",
        "What a store has absorbed is decided; the void of the line does not undo it.",
        f"{SQL}/close_cases.sql",
        "   AND (cases.resolved_at IS NULL"
        " OR (cases.resolution = 'absorb' AND cases.undone_at IS NULL))\n",
        "   AND cases.resolved_at IS NULL\n",
        UNDOING,
        "a_shortfall_that_was_absorbed_is_undone_with_its_line",
        "what_was_recovered_before_the_rest_was_absorbed_is_given_back",
    ),
    story(
        "what-was-recovered-is-not-given-back",
        "A void gives back what the line itself took, and not what was recovered of it later.",
        JUDGEMENT,
        "known.recovered_minor.get(result.case_id, 0) if result.case_id else 0",
        "0",
        UNDOING,
        "a_shortfall_that_was_recovered_is_undone_with_its_line",
        "a_short_sale_that_was_recovered_and_refunded_is_voided",
    ),
    story(
        "a-void-closes-the-case-of-what-was-applied-by-hand",
        "The void of a key closes every case that its lines have opened, whatever they became.",
        f"{SQL}/close_cases.sql",
        "   AND cases.outcome = closed.outcome\n",
        "",
        AFTER_APPLY,
        "a_void_of_the_key_leaves_open_what_was_applied_under_hqs_own",
        "a_void_of_the_key_does_not_undo_what_was_absorbed_under_hqs_own",
    ),
    story(
        "a-refund-is-applied-although-its-original-was-voided",
        "Whoever applies a held refund by hand will have looked whether the sale still stands.",
        SETTLEMENT,
        "(under is not None or line.original in known.voided)",
        "under is not None",
        AFTER_APPLY,
        "a_refund_whose_original_was_voided_meanwhile_is_not_applied",
    ),
)

LOCKS_AND_GRANTS = (
    story(
        "the-purpose-of-a-lock-is-not-looked-at",
        "A lock is a lock: whoever has one may redeem, load or cash out.",
        JUDGEMENT,
        "    if proof.purpose is not None and proof.purpose != line.operation:  # 17\n"
        "        codes.append(Code.NOT_AS_LOCKED)\n",
        "",
        LOCKED_FOR,
        "a_line_under_a_lock_to_redeem_that_does_something_else_is_told",
        "a_line_that_redeems_under_a_lock_to_load_is_told",
        "a_load_after_the_release_of_a_lock_to_redeem_is_told",
        "a_redemption_after_a_lock_to_load_was_broken_is_told",
    ),
    story(
        "the-amount-of-a-gone-lock-is-not-looked-at",
        "A late line is judged by the balance; what its lock was good for went with it.",
        JUDGEMENT,
        "            gone.purpose,\n            gone.amount_minor,\n",
        "            gone.purpose,\n            None,\n",
        LOCKED_FOR,
        "a_load_above_the_amount_of_its_released_lock_is_told",
        "a_redemption_after_a_lock_to_load_was_broken_is_told",
    ),
    story(
        "the-amount-of-a-grant-is-not-looked-at",
        "A grant proves that there was a lock; how much it was good for is not asked.",
        JUDGEMENT,
        "            grant.purpose,\n            grant.amount_minor,\n",
        "            grant.purpose,\n            None,\n",
        LOCKED_FOR,
        "a_load_above_its_grant_is_told",
        "a_redemption_above_its_grant_is_told_although_the_card_covers_it",
    ),
    story(
        "a-grant-creates-a-card-of-any-amount",
        "A card that HQ promised and forgot is created with what the line says is on it.",
        JUDGEMENT,
        "    if line.amount_minor > grant.amount_minor:\n        return None\n",
        "",
        LOCKED_FOR,
        "a_grant_creates_a_card_up_to_its_amount",
    ),
    story(
        "a-grant-is-good-for-any-purpose",
        "A grant that HQ signed for the sale is good, whatever the line does under it.",
        JUDGEMENT,
        "        and grant.purpose == line.operation\n",
        "",
        LOCKED_FOR,
        "a_grant_to_redeem_is_none_to_load",
        "a_grant_to_load_is_none_to_redeem",
        "a_grant_to_redeem_creates_no_card",
    ),
    story(
        "a-memo-is-topped-up",
        "A credit memo is as good as a gift card: what is loaded onto it arrives.",
        JUDGEMENT,
        "    if instrument.kind == Kind.CREDIT_MEMO and line.operation != Operation.ISSUE:\n"
        "        return Code.OPERATION_NOT_ALLOWED\n",
        "",
        LOCKED_FOR,
        "nothing_is_loaded_onto_a_memo_in_a_batch",
        "nothing_is_refunded_to_a_memo_in_a_batch",
    ),
    story(
        "a-release-at-a-reused-place-frees-nothing",
        "A release at a place that has arrived before has come before, and frees nothing.",
        SETTLEMENT,
        "line.operation == Operation.RELEASE and line.lock_id is None",
        "line.operation == Operation.RELEASE",
        LOCKED_FOR,
        "a_release_at_a_reused_place_frees_the_lock_that_it_names",
    ),
    story(
        "a-lock-of-a-voided-key-keeps-its-place",
        "A lock is live until its holder is silent, also if its key can never be used again.",
        LOCKING,
        "    if held is not None and is_holder_voided:\n",
        "    if held is None and is_holder_voided:\n",
        VOID_AGAINST_LOCK,
        "a_lock_whose_key_was_voided_on_another_card_gives_way",
    ),
    story(
        "a-lock-is-given-although-its-key-was-voided",
        "Whether a key is void is read before its lock is given; a void in between goes unseen.",
        f"{SQL}/insert_live_lock.sql",
        " WHERE NOT EXISTS (SELECT 1\n"
        "                     FROM voids\n"
        "                    WHERE store_id = %(store_id)s AND terminal_id = %(terminal_id)s\n"
        "                      AND transaction_id = %(transaction_id)s AND line = %(line)s)\n",
        " WHERE true\n",
        VOID_AGAINST_LOCK,
        "of_a_void_and_a_lock_that_wait_for_one_card_none_leaves_a_lock_behind",
        "a_void_in_a_batch_and_a_lock_that_wait_for_one_card_leave_no_lock_behind",
    ),
)

OTHERS = (
    story(
        "a-balance-has-no-limit",
        "Whether a balance becomes too large is for the database to say.",
        JUDGEMENT,
        "return Code.BALANCE_LIMIT_EXCEEDED if is_too_much else None",
        "return None",
        POISON,
        "a_load_above_the_limit_of_a_balance_is_held_and_stops_no_other_line",
        "a_held_load_above_the_limit_is_not_applied_by_hand_either",
        "a_load_above_the_limit_of_a_balance_is_refused_online",
    ),
    story(
        "a-chunk-that-cannot-be-stored-stays",
        "A chunk that the database refuses is tried again as it is, until somebody mends it.",
        BATCHES,
        "        except Unstorable:\n            is_settled = ",
        "        except Unstorable:\n            raise\n            is_settled = ",
        POISON,
        "a_line_that_the_database_refuses_is_held_and_every_other_is_settled",
        "the_lines_around_one_that_the_database_refuses_build_on_each_other",
    ),
    story(
        "a-line-that-cannot-be-stored-stays",
        "A chunk that the database refuses is settled line by line, up to the one that it refuses.",
        BATCHES,
        "        except Unstorable as error:\n",
        "        except Unstorable as error:\n            raise\n",
        POISON,
        "a_batch_in_which_every_line_is_refused_is_settled_all_the_same",
    ),
    story(
        "a-refund-of-a-voided-line-waits-for-ever",
        "A refund whose original was posted is judged again each time, also if that was voided.",
        f"{SQL}/read_waiting_lines.sql",
        "   AND NOT EXISTS (SELECT 1\n"
        "                     FROM voids\n"
        "                    WHERE voids.store_id = original.store_id\n"
        "                      AND voids.terminal_id = original.terminal_id\n"
        "                      AND voids.transaction_id = original.transaction_id\n"
        "                      AND voids.line = original.line)\n",
        "",
        WAITING,
        "a_refund_of_a_voided_line_is_not_judged_again",
        "a_thousand_lines_that_wait_for_ever_keep_no_other_store_waiting",
    ),
    story(
        "a-refund-of-a-load-waits-for-ever",
        "A refund whose original was posted is judged again each time, also if that took nothing.",
        f"{SQL}/read_waiting_lines.sql",
        "   AND original.operation IN ('redeem', 'cash_out')\n",
        "",
        WAITING,
        "a_refund_of_a_line_that_took_nothing_is_not_judged_again",
    ),
    story(
        "a-line-that-waits-for-nothing-more-still-waits",
        "A line that is judged again and held again says what it said, and waits for its card.",
        "hq_service/operations/waiting.py",
        "        case.codes = list(result.codes)\n        cases.update(connection, case)\n"
        "        return False\n",
        "        return False\n",
        WAITING,
        "a_line_whose_card_came_in_another_currency_says_so_and_waits_no_more",
        "a_refund_whose_original_came_smaller_than_it_says_so",
    ),
)

STORIES = (*VOIDS, *LOCKS_AND_GRANTS, *OTHERS)
