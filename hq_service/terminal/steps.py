"""What can happen in a story: who does what, and what HQ has to answer to it."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from hq_service.domain.model import Kind
from hq_service.domain.money import display
from hq_service.domain.numbers import last4, mask
from hq_service.terminal.client import Answer, Client, encoded
from hq_service.terminal.till import NotPossible, Till

ADMINISTRATOR = "administrator"
SYNC_JOB = "sync job"
TILL_A = "till A"
TILL_B = "till B"

STORE_ID = "S001"
TERMINAL_IDS = {TILL_A: "T01", TILL_B: "T02"}
CURRENCY = "SEK"

RUN_NOW = "/v1/admin/distribution-schedules/commerce-configuration/runs"
SESSIONS = "/v1/distribution-sessions"

GIFT_CARDS_OFFLINE = "allow_concluding_gift_card_transactions_offline"
CREDIT_MEMOS_OFFLINE = "allow_concluding_credit_memo_transactions_offline"
PARTIAL_USE = "credit_memo_partial_use"
CHANGED_PARAMETERS = (GIFT_CARDS_OFFLINE, CREDIT_MEMOS_OFFLINE, PARTIAL_USE)
"""What the stories change, and what is put back afterwards."""

_NAMES = {Kind.GIFT_CARD: "gift card", Kind.CREDIT_MEMO: "credit memo"}
LONGEST_INSTRUMENT = "credit memo *0000"
_SHOWN_LENGTH_MAX = 60


class Company:
    """Everybody who calls HQ in one run.

    ``parameters`` is what HQ told the administrator last, ``parameters_before`` what the run
    changes, as it was before it; None as long as nothing is changed.
    """

    def __init__(self, url: str, keys: Mapping[str, str]) -> None:
        """Take the API keys by who uses them: ADMINISTRATOR, SYNC_JOB, TILL_A, TILL_B."""
        self.run_id = uuid.uuid4().hex[:10]
        self.parameters_before: Mapping[str, Any] | None = None
        self.parameters = Answer(status=0)
        self._clients = {who: Client(url, key) for who, key in keys.items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for client in self._clients.values():
            client.close()

    def client(self, who: str) -> Client:
        """Return the client that somebody calls with."""
        return self._clients[who]

    def edit_parameters(self, changes: Mapping[str, Any]) -> Answer:
        """Edit the Commerce parameters as they are now, and remember how they were at first."""
        seen = self._read_parameters()
        if seen.is_problem:
            return seen
        if self.parameters_before is None:
            self.parameters_before = _changed_parameters(seen)
        return self._save_parameters(changes, "demo", seen)

    def put_parameters_back(self) -> Answer:
        """Restore what `edit_parameters` found at first, unless that is what there is."""
        seen = self._read_parameters()
        before = self.parameters_before
        if seen.is_problem or before is None or _changed_parameters(seen) == before:
            return seen
        return self._save_parameters(before, "the demo is over", seen)

    def _read_parameters(self) -> Answer:
        self.parameters = self.client(ADMINISTRATOR).get("/v1/admin/parameters")
        return self.parameters

    def _save_parameters(self, changes: Mapping[str, Any], reason: str, seen: Answer) -> Answer:
        body = {"parameters": dict(changes), "reason": reason}
        saved = self.client(ADMINISTRATOR).patch("/v1/admin/parameters", body, seen.etag)
        self.parameters = saved
        return saved


def _changed_parameters(seen: Answer) -> dict[str, Any]:
    return {name: seen.at(f"parameters.{name}") for name in CHANGED_PARAMETERS}


@dataclass
class Scene:
    """What one story is about: its instrument, its tills, and what has come up so far."""

    company: Company
    name: str
    tills: Mapping[str, Till] = field(init=False)
    kind: Kind = Kind.GIFT_CARD
    number: str = field(default="", repr=False)
    instrument_id: str | None = None
    batch: Mapping[str, Any] = field(default_factory=dict)
    remainder_id: str | None = None

    def __post_init__(self) -> None:
        self.tills = {
            who: Till(self.company.client(who), STORE_ID, terminal_id, self.name)
            for who, terminal_id in TERMINAL_IDS.items()
        }

    @property
    def instrument(self) -> str:
        """Return the instrument as it may be shown."""
        return f"{_NAMES[self.kind]} *{last4(self.number)}" if self.number else _NAMES[self.kind]

    @property
    def spendable_id(self) -> str | None:
        """Return which instrument the number stands for now: a used memo's is its remainder."""
        return self.remainder_id or self.instrument_id


Action = Callable[[Scene], Answer | None]
"""Does something; None when HQ is not asked."""


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

    def told(self, answer: Answer) -> str:
        """Return the answer in few words."""
        if not answer.is_problem:
            return f"{answer.status} {self.tell(answer)}"
        holder = answer.at("holder.terminal_id")
        return f"{answer.status} {answer.at('code')}" + (f" by {holder}" if holder else "")

    def faults(self, answer: Answer, scene: Scene) -> list[str]:
        """Return what is not as expected, a sentence for each."""
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
        answer = scene.company.client(ADMINISTRATOR).post("/v1/admin/instruments", wish)
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
        lambda scene: scene.company.client(ADMINISTRATOR).post(RUN_NOW, body),
        {"status": 201},
        lambda answer: "sessions: " + _counted(answer.at("counts") or {}),
    )


def applies_packages() -> Step:
    """The sync job fetches what there is for its store, applies it, and tells so."""

    def apply(scene: Scene) -> Answer:
        client = scene.company.client(SYNC_JOB)
        answer = client.get(SESSIONS)
        for session in () if answer.is_problem else answer.at("sessions"):
            if session["direction"] != "download":
                continue
            path = f"{SESSIONS}/{session['session_id']}"
            package = client.get(f"{path}/package")
            if package.is_problem:
                return package
            checksum = hashlib.sha256(package.content).hexdigest()
            told = {"status": "applied", "checksum_sha256": checksum}
            answer = client.post(f"{path}/acknowledgements", told)
            if answer.is_problem:
                return answer
        return answer

    return Step(
        SYNC_JOB,
        "fetches the packages and applies them",
        apply,
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

    paths = ["revision", *(f"parameters.{name}" for name in CHANGED_PARAMETERS)]
    return Step(
        who,
        "fetches the parameters, which acknowledges them",
        lambda scene: scene.tills[who].fetch_parameters(),
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
        expected["offline.grant"] = (
            (lambda scene: scene.tills[who].grant or "a grant") if is_granted else None
        )
    return Step(
        who,
        "adds {instrument} to a sale and locks it",
        lambda scene: scene.tills[who].lock(scene.kind, scene.number),
        expected,
        _tell_lock,
    )


def is_refused_the_lock(who: str, *, holder: str, what: str = "asks for the lock, too") -> Step:
    """A till asks for a lock that another one holds."""
    return Step(
        who,
        what,
        lambda scene: scene.tills[who].lock(scene.kind, scene.number),
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
        lambda scene: scene.tills[who].redeem(amount_minor),
        _redeemed(amount_minor, balance_minor),
        lambda answer: f"balance {_money(answer, 'balance_after_minor')}",
    )


def redeems_unheard(who: str, amount_minor: int, *, balance_minor: int) -> Step:
    """A till redeems online, and what HQ answers is lost: seen here, but not by the till."""
    return Step(
        who,
        f"redeems {display(amount_minor, CURRENCY)}, and the answer is lost",
        lambda scene: scene.tills[who].redeem(amount_minor),
        _redeemed(amount_minor, balance_minor),
        lambda answer: f"balance {_money(answer, 'balance_after_minor')} (never arrives)",
    )


def finds_balance(
    who: str, balance_minor: int, *, what: str = "asks for the balance of {instrument}"
) -> Step:
    """A till finds the instrument free, with this balance."""
    return Step(
        who,
        what,
        lambda scene: scene.tills[who].inquire_balance(scene.kind, scene.number),
        {
            "status": 200,
            "balance_minor": balance_minor,
            "is_locked": False,
            "instrument_id": _spendable_id,
        },
        _tell_balance,
    )


# --- the tills, offline ---------------------------------------------------------------------------


def concludes_offline(who: str, amount_minor: int, *, what: str = "loses connection") -> Step:
    """A till goes on without HQ, under the grant that came with its lock."""

    def conclude(scene: Scene) -> None:
        scene.tills[who].conclude_offline(amount_minor)

    return Step(who, f"{what}; concludes {display(amount_minor, CURRENCY)} offline", conclude)


def cannot_conclude_offline(who: str) -> Step:
    """A till without a grant takes the instrument out of its sale when the connection is lost."""

    def void_tender(scene: Scene) -> None:
        till = scene.tills[who]
        if till.grant is not None:
            raise NotPossible("The till has a grant, so it could conclude the sale.")
        till.void_tender_offline()

    return Step(who, "loses connection; has no grant: voids its tender", void_tender)


# --- the sync job ---------------------------------------------------------------------------------


def posts_batch(who: str, *, outcome: str, what: str, **expected: object) -> Step:
    """The sync job posts what a till stored. Further expectations are of the line's result."""

    def post(scene: Scene) -> Answer:
        scene.batch = {
            "store_id": STORE_ID,
            "batch_id": f"{scene.name}-1",
            "lines": scene.tills[who].take_unsent(),
        }
        answer = _post(scene, scene.batch)
        scene.remainder_id = answer.at("results.0.remainder_id")
        return answer

    return Step(SYNC_JOB, what, post, _settled(201, outcome, expected), _tell_batch)


def posts_same_bytes(**expected: object) -> Step:
    """The sync job repeats itself, because it never heard an answer, say."""
    return Step(
        SYNC_JOB,
        "posts the same batch once more, byte for byte",
        lambda scene: _post(scene, scene.batch),
        {**_settled(200, "applied", expected), "is_replay": True},
        _tell_batch,
    )


def posts_lines_again(**expected: object) -> Step:
    """The sync job sends the same lines as another batch, after it was restored, say."""
    return Step(
        SYNC_JOB,
        "posts the same line in another batch",
        lambda scene: _post(scene, {**scene.batch, "batch_id": f"{scene.name}-2"}),
        _settled(201, "duplicate", {"original_outcome": "applied", **expected}),
        _tell_batch,
    )


def _post(scene: Scene, batch: Mapping[str, Any]) -> Answer:
    return scene.company.client(SYNC_JOB).post("/v1/offline-batches", encoded(batch))


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
        "amount_minor": amount_minor,
        "balance_after_minor": balance_minor,
        "remainder.instrument_id": None,
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
