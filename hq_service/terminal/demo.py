"""The stories of the documents, played by two tills against a running service, and checked.

Each run issues instruments of its own, so it can be repeated for ever on the same database; the
Commerce parameters that it changes are put back at the end, also when a step fails.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import click

from hq_service.domain.glossary import ENGLISH
from hq_service.domain.model import Kind
from hq_service.domain.numbers import mask
from hq_service.domain.parameter_texts import label
from hq_service.terminal import services
from hq_service.terminal.client import Unreachable
from hq_service.terminal.refusals import NotPossible, Refused
from hq_service.terminal.scene import (
    ADMINISTRATOR,
    CREDIT_MEMOS_OFFLINE,
    GIFT_CARDS_OFFLINE,
    LONGEST_INSTRUMENT,
    STORE_ID,
    SYNC_JOB,
    TERMINAL_IDS,
    TILL_A,
    TILL_B,
    Company,
    Scene,
    Unexpected,
)
from hq_service.terminal.steps import (
    Step,
    another_memo,
    cannot_conclude_offline,
    concludes_offline,
    distributes,
    fetches_parameters,
    finds_balance,
    has_concluded_offline,
    is_refused_the_lock,
    issues,
    locks,
    posts_batch,
    posts_batch_unheard,
    posts_lines_again,
    posts_same_bytes,
    puts_parameters_back,
    redeems,
    redeems_unheard,
    sets_parameters,
)

KEY_VARIABLES = {
    ADMINISTRATOR: "HQ_ADMIN_KEY",
    TILL_A: "HQ_T01_KEY",
    TILL_B: "HQ_T02_KEY",
    SYNC_JOB: "HQ_SYNC_S001_KEY",
}


@dataclass(frozen=True, slots=True)
class Story:
    """A title, why it is told, and what happens."""

    title: str
    about: str
    steps: Sequence[Step]


def _parameter(name: str, value: str) -> str:
    return f'"{label(name, ENGLISH)}" is {value}.'


def _without_permission(kind: Kind, name: str) -> tuple[Step, ...]:
    return (
        sets_parameters(gift_cards=False, credit_memos=False),
        *distributes(),
        fetches_parameters(TILL_A),
        issues(kind, 300_00),
        locks(TILL_A, up_to_minor=300_00, is_granted=False),
        is_refused_the_lock(TILL_B, holder=TILL_A),
        cannot_conclude_offline(TILL_A),
        posts_batch(
            TILL_A,
            outcome="applied",
            what="posts the batch with the void",
            codes=["voided"],
            funded_minor=0,
            balance_after_minor=None,
        ),
        finds_balance(TILL_B, 300_00, what=f"asks for the balance: the {name} is free, and whole"),
        locks(TILL_B, up_to_minor=300_00),
        redeems(TILL_B, 300_00, balance_minor=0),
    )


STORIES = (
    Story(
        "Gift card, parameter Yes",
        _parameter(GIFT_CARDS_OFFLINE, "Yes"),
        (
            sets_parameters(gift_cards=True, credit_memos=False),
            *distributes(),
            fetches_parameters(TILL_A),
            issues(Kind.GIFT_CARD, 500_00),
            locks(TILL_A, up_to_minor=500_00, is_granted=True),
            is_refused_the_lock(TILL_B, holder=TILL_A),
            concludes_offline(TILL_A, 120_00),
            is_refused_the_lock(TILL_B, holder=TILL_A, what="asks again; the card is still locked"),
            posts_batch_unheard(TILL_A, funded_minor=120_00, balance_after_minor=380_00),
            posts_same_bytes(TILL_A, funded_minor=120_00, balance_after_minor=380_00),
            posts_lines_again(TILL_A, funded_minor=120_00, balance_after_minor=380_00),
            finds_balance(TILL_B, 380_00, what="asks for the balance: down once, and free"),
            locks(TILL_B, up_to_minor=380_00),
            redeems(TILL_B, 380_00, balance_minor=0),
        ),
    ),
    Story(
        "Credit memo, parameter Yes",
        _parameter(CREDIT_MEMOS_OFFLINE, "Yes") + " A memo is used once; its rest is a new memo.",
        (
            sets_parameters(gift_cards=False, credit_memos=True),
            *distributes(),
            fetches_parameters(TILL_A),
            issues(Kind.CREDIT_MEMO, 250_00),
            locks(TILL_A, up_to_minor=250_00, is_granted=True),
            is_refused_the_lock(TILL_B, holder=TILL_A),
            concludes_offline(TILL_A, 100_00),
            is_refused_the_lock(TILL_B, holder=TILL_A, what="asks again; the memo is still locked"),
            posts_batch_unheard(
                TILL_A, funded_minor=100_00, balance_after_minor=0, remainder_id=another_memo
            ),
            posts_same_bytes(
                TILL_A, funded_minor=100_00, balance_after_minor=0, remainder_id=another_memo
            ),
            posts_lines_again(
                TILL_A, funded_minor=100_00, balance_after_minor=0, remainder_id=another_memo
            ),
            finds_balance(TILL_B, 150_00, what="asks for the balance by the old number: the rest"),
            locks(TILL_B, up_to_minor=150_00),
            redeems(TILL_B, 150_00, balance_minor=0),
        ),
    ),
    Story(
        "A redemption whose answer was lost",
        "It is concluded again offline under the same business key: HQ takes the money once.",
        (
            sets_parameters(gift_cards=True, credit_memos=True),
            *distributes(),
            fetches_parameters(TILL_A),
            issues(Kind.GIFT_CARD, 400_00),
            locks(TILL_A, up_to_minor=400_00, is_granted=True),
            redeems_unheard(TILL_A, 150_00, balance_minor=250_00),
            has_concluded_offline(TILL_A, 150_00),
            posts_batch(
                TILL_A,
                outcome="duplicate",
                what="posts the batch",
                original_outcome="applied",
                funded_minor=150_00,
                balance_after_minor=250_00,
            ),
            finds_balance(TILL_B, 250_00, what="asks for the balance: down once, and free"),
            locks(TILL_B, up_to_minor=250_00),
            redeems(TILL_B, 250_00, balance_minor=0),
        ),
    ),
    Story(
        "Gift card, parameter No",
        _parameter(GIFT_CARDS_OFFLINE, "No"),
        _without_permission(Kind.GIFT_CARD, "card"),
    ),
    Story(
        "Credit memo, parameter No",
        _parameter(CREDIT_MEMOS_OFFLINE, "No"),
        _without_permission(Kind.CREDIT_MEMO, "memo"),
    ),
)

AFTERWARDS = Story(
    "Afterwards",
    "Everything is as it was, but for the balances of the demo's own instruments.",
    (puts_parameters_back(), *distributes(), fetches_parameters(TILL_A)),
)


# --- the runner -----------------------------------------------------------------------------------


def run(
    url: str | None, port: int, environ: Mapping[str, str], read_keys: Callable[[], dict[str, str]]
) -> bool:
    """Play every story on the service at ``url``, or on the one that is found or started.

    ``read_keys`` is asked, once the service is there, for the API keys that ``environ`` lacks.
    Returns: whether everything was as expected.
    """
    with _ended_in_order(), services.chosen(url, port) as service:
        with Company(service.url, _keys(environ, read_keys)) as company:
            is_as_expected = play(company)
        if not is_as_expected:
            service.show_log()
        return is_as_expected


def play(company: Company, stories: Sequence[Story] = STORIES) -> bool:
    """Play stories and print a row for each step; return whether everything was as expected.

    A story ends at the first step that is off, because the next ones build on it; the other
    stories are still played.
    """
    table = _Table([*stories, AFTERWARDS])
    registers = ", ".join(f"{who} is {terminal}" for who, terminal in TERMINAL_IDS.items())
    click.echo(f"In store {STORE_ID} {registers}.")
    try:
        for number, story in enumerate(stories, start=1):
            table.begin(f"{number}. {story.title}", story.about)
            with Scene(company, f"demo-{company.run_id}-{number}") as scene:
                _play_story(story, scene, table)
    finally:
        if company.parameters_before is not None:
            _play_afterwards(company, table)
    return table.end()


def _play_story(story: Story, scene: Scene, table: _Table) -> None:
    for place, step in enumerate(story.steps, start=1):
        row = _perform(step, scene)
        table.add(row)
        if row.faults:
            table.skip(len(story.steps) - place)
            return


def _play_afterwards(company: Company, table: _Table) -> None:
    # Performed before anything is printed: when printing is what failed, they still happen.
    with Scene(company, f"demo-{company.run_id}-afterwards") as scene:
        rows = [_perform(step, scene) for step in AFTERWARDS.steps]
    table.begin(AFTERWARDS.title, AFTERWARDS.about)
    for row in rows:
        table.add(row)
    if rows[0].faults:
        before = company.parameters_before or {}
        values = ", ".join(f"{name} = {value}" for name, value in before.items())
        click.echo(f"\nPut the parameters back by hand; they were {values}.")


@dataclass(frozen=True, slots=True)
class _Row:
    who: str
    what: str
    answered: str
    said: Sequence[str]
    faults: Sequence[str]


def _perform(step: Step, scene: Scene) -> _Row:
    """Do one step, and compare what HQ answered with what it has to answer."""
    answered = "-"
    try:
        answer = step.action(scene)
        answered, faults = step.told(answer), step.faults(answer, scene)
    except (Unreachable, NotPossible, Refused, Unexpected) as error:
        faults = [mask(str(error))]
    # The instrument has its last four characters only now, if this step issued it.
    what = step.what.format(instrument=scene.instrument)
    return _Row(step.who, what, answered, scene.take_what_was_said(), faults)


class _Table:
    """The table that a run prints, row by row as things happen."""

    def __init__(self, stories: Sequence[Story]) -> None:
        steps = [step for story in stories for step in story.steps]
        self._who_width = max(len(step.who) for step in steps)
        self._what_width = max(
            len(step.what.format(instrument=LONGEST_INSTRUMENT)) for step in steps
        )
        self._rows = 0
        self._off = 0
        self._skipped = 0

    def begin(self, title: str, about: str) -> None:
        click.echo(f"\n{title}\n{about}\n")
        self._print("", "who", "what", "what HQ answered")

    def add(self, row: _Row) -> None:
        self._rows += 1
        self._off += bool(row.faults)
        self._print("OFF" if row.faults else "ok", row.who, row.what, row.answered)
        for sentence in row.said:
            click.echo(f"       > {sentence}")
        for fault in row.faults:
            click.echo(f"       ^ {fault}")

    def skip(self, count: int) -> None:
        self._skipped += count
        if count:
            click.echo(f"       (the story ends here; steps not played: {count})")

    def end(self) -> bool:
        if not self._off:
            click.echo(f"\n{self._rows} steps, every one as expected.")
            return True
        skipped = f", {self._skipped} were not played" if self._skipped else ""
        click.echo(f"\n{self._off} of {self._rows} steps OFF{skipped}.")
        return False

    def _print(self, mark: str, who: str, what: str, answered: str) -> None:
        left = f"  {mark:<3}  {who:<{self._who_width}}  {what:<{self._what_width}}"
        click.echo(f"{left}  {answered}".rstrip())


def _keys(environ: Mapping[str, str], read_keys: Callable[[], dict[str, str]]) -> dict[str, str]:
    """Return everybody's API key: from the environment, else of the demo data."""
    found = {who: environ.get(name, "").strip() for who, name in KEY_VARIABLES.items()}
    if not all(found.values()):
        demo_keys = read_keys()
        found = {who: found[who] or demo_keys[name] for who, name in KEY_VARIABLES.items()}
    for who, key in found.items():
        if not key.isascii() or not key.isprintable():
            raise click.ClickException(f"{KEY_VARIABLES[who]} is not an API key.")
    return found


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Let SIGTERM, like Ctrl-C, restore the parameters and stop the service before it ends us."""

    def end(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
