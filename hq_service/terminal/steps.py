"""What can happen in a story: who does what, and what HQ has to answer to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from hq_service.domain.model import Kind
from hq_service.domain.money import display
from hq_service.domain.numbers import last4, mask
from hq_service.terminal.client import Answer, Unreachable
from hq_service.terminal.downloads import do_sessions
from hq_service.terminal.refusals import NotPossible, Refused
from hq_service.terminal.sale import Receipt
from hq_service.terminal.scene import (
    ADMINISTRATOR,
    CHANGED_PARAMETERS,
    CREDIT_MEMOS_OFFLINE,
    GIFT_CARDS_OFFLINE,
    PARTIAL_USE,
    STORE_ID,
    SYNC_JOB,
    TERMINAL_IDS,
    Scene,
    Unexpected,
)
from hq_service.terminal.setup import Setup
from hq_service.terminal.store import TillStore
from hq_service.terminal.sync import Stopped, upload
from hq_service.terminal.terminal import utc_now

CURRENCY = "SEK"
RUN_NOW = "/v1/admin/distribution-schedules/commerce-configuration/runs"

_SHOWN_LENGTH_MAX = 60

Action = Callable[[Scene], Answer | None]
"""Does something, and gives what HQ answered; None when HQ is not asked."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a story: a row of the table.

    ``what`` may name ``{instrument}``. ``expected`` is what the answer has to be: ``status``,
    ``is_replay`` or a path into the body, to a value or to a function of the scene that knows it.
    ``tell`` says the answer in few words.
    """

    who: str
    what: str
    action: Action
    expected: Mapping[str, object] = field(default_factory=dict)
    tell: Callable[[Answer], str] = lambda _answer: ""

    def told(self, answer: Answer | None) -> str:
        """Return the answer in few words."""
        if answer is None:
            return "-" if self.expected else "(not asked)"
        if not answer.is_problem:
            return f"{answer.status} {self.tell(answer)}"
        holder = answer.at("holder.terminal_id")
        return f"{answer.status} {answer.at('code')}" + (f" by {holder}" if holder else "")

    def faults(self, answer: Answer | None, scene: Scene) -> list[str]:
        """Return what is not as expected, a sentence for each."""
        if not self.expected:
            return [] if answer is None else ["HQ was asked, and is not in this step."]
        if answer is None:
            return ["HQ did not answer."]
        wanted_status = self.expected.get("status")
        if answer.status != wanted_status:
            detail = mask(str(answer.at("detail") or answer.at("title") or ""))
            return [f"status is {answer.status}, expected {wanted_status}. {detail}".strip()]
        facts = {"status": answer.status, "is_replay": answer.is_replay}
        faults = []
        for path, value in self.expected.items():
            wanted = value(scene) if callable(value) else value
            found = facts[path] if path in facts else answer.at(path)
            if found != wanted:
                faults.append(f"{path} is {_shown(path, found)}, expected {_shown(path, wanted)}")
        return faults


def _shown(path: str, value: object) -> str:
    if path.endswith("_minor") and isinstance(value, int):
        return display(value, CURRENCY)
    text = "absent" if value is None else str(value)
    # A grant is worth money until it is spent.
    return text if len(text) <= _SHOWN_LENGTH_MAX else f"a text of {len(text)} characters"


# --- the administrator ----------------------------------------------------------------------------


def sets_parameters(*, gift_cards: bool, credit_memos: bool) -> Step:
    """The administrator decides for which instruments sales may be concluded offline."""
    # The stories tell of memos that are used once, whatever this database had before.
    changes = {
        GIFT_CARDS_OFFLINE: gift_cards,
        CREDIT_MEMOS_OFFLINE: credit_memos,
        PARTIAL_USE: "reissue",
    }
    return Step(
        ADMINISTRATOR,
        f"sets concluding offline: {_offline(gift_cards, credit_memos)}",
        lambda scene: scene.company.edit_parameters(changes),
        {"status": 200, **{f"parameters.{name}": value for name, value in changes.items()}},
        _tell_parameters,
    )


def puts_parameters_back() -> Step:
    """The administrator restores what was there before the first story."""

    def as_before(name: str) -> Callable[[Scene], object]:
        return lambda scene: (scene.company.parameters_before or {}).get(name)

    return Step(
        ADMINISTRATOR,
        "puts the parameters back as they were before",
        lambda scene: scene.company.put_parameters_back(),
        {"status": 200, **{f"parameters.{name}": as_before(name) for name in CHANGED_PARAMETERS}},
        _tell_parameters,
    )


def issues(kind: Kind, amount_minor: int) -> Step:
    """The administrator issues a fresh instrument; HQ makes its number."""

    def issue(scene: Scene) -> Answer:
        scene.kind = kind
        wish = {
            "reference": scene.name,
            "kind": kind,
            "currency": CURRENCY,
            "amount_minor": amount_minor,
        }
        answer = scene.company.administrator.post("/v1/admin/instruments", wish)
        scene.number = answer.at("number") or ""
        scene.instrument_id = answer.at("instrument.instrument_id")
        return answer

    return Step(
        ADMINISTRATOR,
        f"issues {{instrument}} of {display(amount_minor, CURRENCY)}",
        issue,
        {
            "status": 201,
            "instrument.kind": kind,
            "instrument.status": "active",
            "instrument.balance_minor": amount_minor,
            "instrument.number_last4": lambda scene: last4(scene.number),
        },
        lambda answer: f"balance {_money(answer, 'instrument.balance_minor')}",
    )


# --- distribution ---------------------------------------------------------------------------------


def runs_distribution() -> Step:
    """The administrator presses Run now: what is saved is made into packages for the store."""
    body = {"reason": "demo", "store_ids": [STORE_ID]}
    return Step(
        ADMINISTRATOR,
        "runs the distribution schedule now",
        lambda scene: scene.company.administrator.post(RUN_NOW, body),
        {"status": 201},
        lambda answer: "sessions: " + _counted(answer.at("counts") or {}),
    )


def applies_packages() -> Step:
    """The sync job fetches what there is for its store, applies it, and tells so."""

    def apply(scene: Scene) -> None:
        # Nothing of this job's tills is pending when a story begins.
        done = do_sessions(scene.wire(SYNC_JOB), scene.directory, lambda: True)
        failed = [f"The session {job} is {status}." for job, status in done if status != "applied"]
        if failed:
            raise Unexpected(" ".join(failed))

    return Step(
        SYNC_JOB,
        "fetches the packages and applies them",
        _heard(SYNC_JOB, apply),
        {"status": 200},
        lambda answer: answer.at("status") or "nothing to do",
    )


def distributes() -> tuple[Step, Step]:
    """What is saved gets to the store's tills."""
    return runs_distribution(), applies_packages()


# --- the tills, online ----------------------------------------------------------------------------


def fetches_parameters(who: str) -> Step:
    """A till fetches what its store has applied; HQ grants by what it has fetched."""

    def saved(path: str) -> Callable[[Scene], object]:
        return lambda scene: scene.company.parameters.at(path)

    def fetch(scene: Scene) -> None:
        scene.till(who).setup.fetch(scene.wire(who))

    paths = ["revision", *(f"parameters.{name}" for name in CHANGED_PARAMETERS)]
    return Step(
        who,
        "fetches the parameters, which acknowledges them",
        _heard(who, fetch, is_first=True),  # before the register's record
        {"status": 200, **{path: saved(path) for path in paths}},
        _tell_parameters,
    )


def locks(who: str, *, up_to_minor: int, is_granted: bool | None = None) -> Step:
    """A till adds the instrument to its sale.

    ``is_granted``: whether HQ has to permit that the sale is concluded offline; None for a till
    of which the story does not say what it acknowledged.
    """
    expected: dict[str, object] = {
        "status": 201,
        "max_amount_minor": up_to_minor,
        "instrument.instrument_id": _spendable_id,
        "instrument.balance_minor": up_to_minor,
    }
    if is_granted is not None:
        expected["offline.allowed"] = is_granted

    def lock(scene: Scene) -> None:
        added = scene.sale(who).redeem(scene.kind, scene.number)
        if is_granted is not None and added.may_conclude_offline != is_granted:
            raise Unexpected(f"The till may {'not ' * is_granted}conclude this sale offline.")

    return Step(
        who, "adds {instrument} to a sale and locks it", _heard(who, lock), expected, _tell_lock
    )


def is_refused_the_lock(who: str, *, holder: str, what: str = "asks for the lock, too") -> Step:
    """A till asks for a lock that another one holds."""
    return Step(
        who,
        what,
        _heard(who, lambda scene: scene.sale(who).redeem(scene.kind, scene.number)),
        {
            "status": 423,
            "code": "instrument_locked",
            "holder.store_id": STORE_ID,
            "holder.terminal_id": TERMINAL_IDS[holder],
        },
    )


def redeems(who: str, amount_minor: int, *, balance_minor: int) -> Step:
    """A till concludes its sale online."""
    return Step(
        who,
        f"redeems {display(amount_minor, CURRENCY)}, all that is left",
        _heard(who, lambda scene: _conclude(scene, who, amount_minor)),
        _redeemed(amount_minor, balance_minor),
        lambda answer: f"balance {_money(answer, 'lines.0.balance_after_minor')}",
    )


def redeems_unheard(who: str, amount_minor: int, *, balance_minor: int) -> Step:
    """A till concludes its sale online, and all that HQ answers is lost: seen here, not there."""

    def redeem(scene: Scene) -> None:
        scene.wire(who).loses_answers = True
        _conclude(scene, who, amount_minor)

    return Step(
        who,
        f"redeems {display(amount_minor, CURRENCY)}, and the answer is lost",
        _heard(who, redeem, is_first=True),  # before the repetition
        _redeemed(amount_minor, balance_minor),
        lambda answer: f"balance {_money(answer, 'lines.0.balance_after_minor')} (never arrives)",
    )


def finds_balance(
    who: str, balance_minor: int, *, what: str = "asks for the balance of {instrument}"
) -> Step:
    """A till finds the instrument free, with this balance."""
    return Step(
        who,
        what,
        _heard(who, lambda scene: scene.till(who).balance(scene.kind, scene.number)),
        {
            "status": 200,
            "balance_minor": balance_minor,
            "is_locked": False,
            "instrument_id": _spendable_id,
        },
        _tell_balance,
    )


def _heard(who: str, do: Callable[[Scene], object], *, is_first: bool = False) -> Action:
    """Let somebody do something; the step's answer is what HQ answered last, or first.

    A refusal is an answer like any other, and compared with what the story says.
    """

    def action(scene: Scene) -> Answer | None:
        answers = scene.wire(who).answers
        answers.clear()
        with suppress(Refused, Stopped):
            do(scene)
        return answers[0 if is_first else -1] if answers else None

    return action


def _conclude(scene: Scene, who: str, amount_minor: int) -> Receipt:
    """Conclude the sale of a till, all of it with the one instrument that is in it."""
    sale = scene.sale(who)
    for line in sale.lines:
        sale.set_amount(line.line, amount_minor)
    return sale.conclude()


# --- the tills, offline ---------------------------------------------------------------------------


def concludes_offline(who: str, amount_minor: int) -> Step:
    """A till goes on without HQ, under the grant that came with its lock."""

    def conclude(scene: Scene) -> None:
        scene.wire(who).is_cut = True
        _check_offline_receipt(_conclude(scene, who, amount_minor), amount_minor)

    what = f"loses connection; concludes {display(amount_minor, CURRENCY)} offline"
    return Step(who, what, _heard(who, conclude))


def has_concluded_offline(who: str, amount_minor: int) -> Step:
    """A till that was not answered took that for an outage, and went on without HQ."""

    def show_receipt(scene: Scene) -> None:
        _check_offline_receipt(scene.sale(who).conclude(), amount_minor)

    what = f"takes it for an outage; concludes {display(amount_minor, CURRENCY)} offline"
    return Step(who, what, _heard(who, show_receipt))


def cannot_conclude_offline(who: str) -> Step:
    """A till without a grant takes the instrument out of its sale when the connection is lost."""

    def void_tender(scene: Scene) -> None:
        scene.wire(who).is_cut = True
        sale = scene.sale(who)
        try:
            _conclude(scene, who, sale.lines[0].max_amount_minor)
        except NotPossible as refused:
            if [reason.code for reason in refused.reasons.values()] != ["parameter_is_no"]:
                raise
            for line, reason in refused.reasons.items():
                scene.say(reason.sentence)
                sale.remove(line)
        else:
            raise Unexpected("The till concluded the sale, and had no grant.")
        sale.conclude()

    return Step(who, "loses connection; has no grant: voids its tender", _heard(who, void_tender))


def _check_offline_receipt(receipt: Receipt, amount_minor: int) -> None:
    if not receipt.is_offline or [line.amount_minor for line in receipt.lines] != [amount_minor]:
        raise Unexpected("The till did not conclude the sale offline.")


# --- the sync job ---------------------------------------------------------------------------------


def posts_batch(who: str, *, outcome: str, what: str, **expected: object) -> Step:
    """The sync job posts what a till stored. Further expectations are of the line's result."""
    return Step(
        SYNC_JOB,
        what,
        _heard(SYNC_JOB, lambda scene: _post(scene, scene.till(who).store)),
        _settled(201, outcome, expected),
        _tell_batch,
    )


def posts_batch_unheard(who: str, **expected: object) -> Step:
    """The sync job posts what a till stored, and the answer is lost: the till keeps everything."""

    def post(scene: Scene) -> None:
        scene.back_up(who)
        wire, store = scene.wire(SYNC_JOB), scene.till(who).store
        wire.loses_answers = True
        with suppress(Unreachable):
            _post(scene, store)
        wire.loses_answers = False
        if not store.journal():
            raise Unexpected("The till purged what it does not know to have arrived.")
        scene.remainder_id = wire.answers[-1].at("results.0.remainder_id")

    return Step(
        SYNC_JOB,
        "posts the batch, now that till A is back",
        _heard(SYNC_JOB, post),
        _settled(201, "applied", expected),
        lambda answer: f"{_tell_batch(answer)} (never arrives)",
    )


def posts_same_bytes(who: str, **expected: object) -> Step:
    """The sync job repeats itself, because it never heard an answer; now the till may purge."""

    def post(scene: Scene) -> None:
        _post(scene, scene.till(who).store)
        if scene.till(who).store.journal():
            raise Unexpected("The till kept what HQ has acknowledged.")

    return Step(
        SYNC_JOB,
        "posts the same batch once more, byte for byte",
        _heard(SYNC_JOB, post),
        {**_settled(200, "applied", expected), "is_replay": True},
        _tell_batch,
    )


def posts_lines_again(who: str, **expected: object) -> Step:
    """The sync job sends the same lines as another batch: the till's backup was restored."""

    def post(scene: Scene) -> None:
        with TillStore(scene.backup_of(who)) as restored:
            _post(scene, restored)

    return Step(
        SYNC_JOB,
        "posts the same line in another batch, from a backup",
        _heard(SYNC_JOB, post),
        _settled(201, "duplicate", {"original_outcome": "applied", **expected}),
        _tell_batch,
    )


def _post(scene: Scene, store: TillStore) -> None:
    upload(scene.wire(SYNC_JOB), store, Setup(store, utc_now), utc_now)


# --- what is expected, and how it is told ---------------------------------------------------------


def _spendable_id(scene: Scene) -> object:
    return scene.spendable_id


def another_memo(scene: Scene) -> object:
    """Return what the remainder of a memo has to be: a memo, and not the one that was used."""
    is_another = scene.remainder_id not in (None, scene.instrument_id)
    return scene.remainder_id if is_another else "another credit memo"


def _redeemed(amount_minor: int, balance_minor: int) -> dict[str, object]:
    return {
        "status": 201,
        "is_replay": False,
        "lines.0.amount_minor": amount_minor,
        "lines.0.balance_after_minor": balance_minor,
        "lines.0.remainder": None,
    }


def _settled(status: int, outcome: str, of_the_line: Mapping[str, object]) -> dict[str, object]:
    result = {
        "codes": [],
        "shortfall_minor": 0,
        "case_id": None,
        "remainder_id": None,
        **of_the_line,
    }
    return {
        "status": status,
        "is_replay": False,
        "lines_count": 1,
        "settled_count": 1,
        "counts": {outcome: 1},
        "results.0.outcome": outcome,
        **{f"results.0.{name}": value for name, value in result.items()},
    }


def _tell_parameters(answer: Answer) -> str:
    gift_cards = answer.at(f"parameters.{GIFT_CARDS_OFFLINE}")
    credit_memos = answer.at(f"parameters.{CREDIT_MEMOS_OFFLINE}")
    return f"revision {answer.at('revision')}: {_offline(gift_cards, credit_memos)}"


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


def _tell_lock(answer: Answer) -> str:
    offline = "granted" if answer.at("offline.grant") else "not granted"
    return f"up to {_money(answer, 'max_amount_minor')}, offline {offline}"


def _tell_balance(answer: Answer) -> str:
    state = "locked" if answer.at("is_locked") else "free"
    return f"balance {_money(answer, 'balance_minor')}, {state}"


def _tell_batch(answer: Answer) -> str:
    replayed = "replayed: " if answer.is_replay else ""
    counts = answer.at("counts") or {}
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
    codes = "".join(f" {code}" for code in answer.at("results.0.codes") or ())
    is_posted = answer.at("results.0.balance_after_minor") is not None
    balance = _money(answer, "results.0.balance_after_minor")
    rest = ", rest on a new one" if answer.at("results.0.remainder_id") else ""
    return f"{replayed}{outcomes}{codes}" + (f", balance {balance}{rest}" if is_posted else "")


def _money(answer: Answer, path: str) -> str:
    amount_minor = answer.at(path)
    return display(amount_minor, CURRENCY) if isinstance(amount_minor, int) else "unknown"


def _offline(gift_cards: object, credit_memos: object) -> str:
    return f"gift card {_yes(gift_cards)}, credit memo {_yes(credit_memos)}"


def _yes(is_allowed: object) -> str:
    return "Yes" if is_allowed else "No"
