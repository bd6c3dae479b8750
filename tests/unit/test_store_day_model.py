"""The day of one store in tests/data/store_day: its files, its counts and its model."""

import ast
import collections
import importlib.util
import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "data" / "store_day"

# What the day must contain at least; the exact counts are in its README.
LEAST = {
    "Instruments": 500,
    "Transactions concluded offline": 2000,
    "Rounds": 12,
    "Sales with two instruments in a batch": 150,
    "Online redeems": 200,
    "Online redeems that come back in a batch": 60,
    "Batches posted twice": 3,
    "Batches sent anew under another batch_id": 3,
    "Lines repeated inside one batch": 12,
    "Batches not in the order of settling": 6,
    "Locks refused, held by another": 10,
    "Locks released online": 20,
    "Instruments locked at the end": 5,
    "Applied in full under the own lock": 1500,
    "Applied under the own lock, with a shortfall": 1,
    "Applied with `over_grant`": 10,
    "Applied with `stale_lock`": 10,
    "Applied with `stale_lock`, with a shortfall": 1,
    "Applied with `stale_lock`, while another held the lock": 1,
    "Applied with `no_lock`": 10,
    "Applied with `no_lock`, funded with nothing": 1,
    "Applied with `instrument_applied`": 1,
    "Held with `unknown_instrument`": 10,
    "Held with `currency_mismatch`": 10,
    "Held with `currency_mismatch`, lock kept to the end": 1,
    "Held with `currency_mismatch`, lock released by a repeat": 1,
    "Held with `business_key_reused`": 10,
    "Cases": 100,
}


def load_model():
    specification = importlib.util.spec_from_file_location("store_day_model", FOLDER / "model.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


model = load_model()


class Files:
    """The data files, and their facts in the shapes that the counts need."""

    def __init__(self):
        self.instruments = json.loads((FOLDER / "instruments.json").read_text())
        lines = (FOLDER / "events.jsonl").read_text().splitlines()
        self.events = [json.loads(line) for line in lines]
        self.batches = {
            f"batches/{path.name}": json.loads(path.read_text())
            for path in sorted((FOLDER / "batches").iterdir())
        }
        self.expected = json.loads((FOLDER / "expected.json").read_text())
        # Lines and results of every batch once, in the order of the files.
        self.results = [
            (line, result)
            for file, batch in self.batches.items()
            for line, result in zip(
                batch["lines"], self.expected["batches"][file]["lines"], strict=True
            )
        ]
        self.first_results = [
            (line, result) for line, result in self.results if result["outcome"] != "duplicate"
        ]

    def of_type(self, name):
        return [event for event in self.events if event["type"] == name]

    def coded(self, *codes):
        """The lines with exactly these codes, repeats apart, and their results."""
        return [pair for pair in self.first_results if pair[1]["codes"] == list(codes)]

    def with_code(self, code):
        return [pair for pair in self.first_results if code in pair[1]["codes"]]


def identity(line):
    """Business key and content, as a value to compare."""
    names = ("terminal_id", "transaction_id", "line", "kind", "number", "amount_minor", "currency")
    return tuple(line[name] for name in names)


def settling_order(lines):
    return sorted(
        lines, key=lambda line: (line["terminal_id"], line["journal_id"], line["sequence"])
    )


def short(pairs):
    return [pair for pair in pairs if pair[1]["shortfall_minor"] > 0]


@pytest.fixture(scope="module")
def files():
    return Files()


@pytest.fixture(scope="module")
def counts(files):
    return {
        **count_input(files),
        **count_lines(files),
        "Cases": files.expected["cases"]["total"],
    }


def count_input(files):
    redeems = files.of_type("redeem")
    redeemed_online = {event["transaction_id"] for event in redeems}
    in_batches = {identity(line) for line, _ in files.results}
    sales = collections.defaultdict(dict)
    for line, _ in files.results:
        sales[line["transaction_id"]][line["line"]] = line["number"]
    posts = collections.Counter(event["file"] for event in files.of_type("batch"))
    sent_anew = [
        file
        for file, expected in files.expected["batches"].items()
        if expected["outcomes"]["applied"] == expected["outcomes"]["held"] == 0
    ]
    bodies = [batch["lines"] for batch in files.batches.values()]
    return {
        "Instruments": len(files.instruments),
        "Transactions concluded offline": len(set(sales) - redeemed_online),
        "Rounds": len(files.batches) - len(sent_anew),
        "Lines in all batches": len(files.results),
        "Sales with two instruments in a batch": sum(
            set(numbers) == {1, 2} and numbers[1] != numbers[2] for numbers in sales.values()
        ),
        "Online redeems": len(redeems),
        "Online redeems that come back in a batch": sum(
            identity(event) in in_batches for event in redeems
        ),
        "Batches posted twice": sum(times == 2 for times in posts.values()),
        "Batches sent anew under another batch_id": len(sent_anew),
        "Lines repeated inside one batch": sum(
            len(lines) - len({identity(line) for line in lines}) for lines in bodies
        ),
        "Batches not in the order of settling": sum(
            lines != settling_order(lines) for lines in bodies
        ),
        "Locks granted": sum(event["expect"] == "granted" for event in files.of_type("lock")),
        "Locks refused, held by another": sum(
            event["expect"] == "held_by_other" for event in files.of_type("lock")
        ),
        "Locks released online": len(files.of_type("release")),
    }


def count_lines(files):
    at_end = files.expected["instruments"]
    mismatches = [line for line, _ in files.coded("currency_mismatch")]
    kept = [
        line for line in mismatches if at_end[line["number"]]["locked_by"] == line["transaction_id"]
    ]
    without_code = files.coded()
    stale = files.coded("stale_lock")
    no_lock = files.with_code("no_lock")
    return {
        "Instruments locked at the end": sum(end["locked"] for end in at_end.values()),
        "Applied in full under the own lock": len(without_code) - len(short(without_code)),
        "Applied under the own lock, with a shortfall": len(short(without_code)),
        "Applied with `over_grant`": len(files.coded("over_grant")),
        "Applied with `stale_lock`": len(stale),
        "Applied with `stale_lock`, with a shortfall": len(short(stale)),
        "Applied with `stale_lock`, while another held the lock": len(stale_under_a_lock(files)),
        "Applied with `no_lock`": len(no_lock),
        "Applied with `no_lock`, funded with nothing": sum(
            result["funded_minor"] == 0 for _, result in no_lock
        ),
        "Applied with `instrument_applied`": len(files.with_code("instrument_applied")),
        "Held with `unknown_instrument`": len(files.coded("unknown_instrument")),
        "Held with `currency_mismatch`": len(mismatches),
        "Held with `currency_mismatch`, lock kept to the end": len(kept),
        "Held with `currency_mismatch`, lock released by a repeat": len(mismatches) - len(kept),
        "Held with `business_key_reused`": len(files.coded("business_key_reused")),
        "Duplicates": len(files.results) - len(files.first_results),
    }


def stale_under_a_lock(files):
    """The stale lines whose card another transaction held before and after their batch."""
    stale = {identity(line) for line, _ in files.coded("stale_lock")}
    day, found = model.open_day(files.instruments), set()
    for event in files.events:
        lines = files.batches[event["file"]]["lines"] if event["type"] == "batch" else []
        held = [
            (line, lock)
            for line in lines
            if identity(line) in stale and (lock := live_lock(day, line["number"])) is not None
        ]
        model.play_event(day, event, files.batches)
        found |= {identity(line) for line, lock in held if live_lock(day, line["number"]) is lock}
    return found


def live_lock(day, number):
    return model.live_lock_of(day["instruments"][number])


def run_make(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-B", folder / "make.py", *arguments], capture_output=True, check=False
    ).returncode


# The files


def test_the_files_are_what_the_script_makes():
    assert run_make(FOLDER, "--check") == 0


def test_the_script_finds_and_mends_a_difference(tmp_path):
    folder = tmp_path / "store_day"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
    changed = (folder / "events.jsonl").read_text().replace("T01", "T02", 1)
    (folder / "events.jsonl").write_text(changed)
    (folder / "batches" / "99.json").write_text("{}\n")
    assert run_make(folder, "--check") == 1
    assert run_make(folder) == 0
    names = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    assert Path("batches/99.json") not in names
    assert [name for name in names if (folder / name).read_bytes() != read(name)] == []


def read(name):
    return (FOLDER / name).read_bytes()


def test_the_files_stay_small():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*.json*")) < 3_000_000


@pytest.mark.parametrize("name", ["make.py", "model.py"])
def test_the_scripts_use_the_standard_library_only(name):
    imported = set()
    for node in ast.walk(ast.parse((FOLDER / name).read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.split(".")[0])
    assert imported - {"model"} <= sys.stdlib_module_names


def test_instruments_have_unique_numbers_of_their_kind(files):
    numbers = [record["number"] for record in files.instruments]
    assert len(set(numbers)) == len(numbers)
    patterns = {"gift_card": r"6006\d{12}", "credit_memo": r"[A-Z][A-Z2-9]{11}"}
    for record in files.instruments:
        assert re.fullmatch(patterns[record["kind"]], record["number"])
        assert record["amount_minor"] > 0
    assert {record["currency"] for record in files.instruments} == {"SEK", "EUR", "JPY", "KWD"}


# The counts


@pytest.mark.parametrize("what", LEAST)
def test_the_day_contains_enough_of(what, counts):
    assert counts[what] >= LEAST[what]


def test_the_readme_tells_the_counts(counts):
    rows = re.findall(r"^\| ([A-Z].*?) \| ([\d,]+) \|$", (FOLDER / "README.md").read_text(), re.M)
    assert {what: int(count.replace(",", "")) for what, count in rows} == counts


def test_every_till_delivers_and_is_interleaved_with_others(files):
    for batch in files.batches.values():
        terminals = [line["terminal_id"] for line in batch["lines"]]
        changes = sum(a != b for a, b in itertools.pairwise(terminals))
        assert changes > len(terminals) / 2
    terminals = {line["terminal_id"] for line, _ in files.results}
    assert terminals == {"T01", "T02", "T03", "T04", "T05", "T06"}


def test_no_sequence_is_missing_or_used_for_two_lines(files):
    journals = collections.defaultdict(dict)
    for batch in files.batches.values():
        for line in batch["lines"]:
            journal = journals[(line["terminal_id"], line["journal_id"])]
            assert journal.setdefault(line["sequence"], line) == line
        for journal in journals.values():
            assert sorted(journal) == list(range(1, len(journal) + 1))
    # Two of the six tills lose their local store during the day.
    assert len(journals) == 8


def test_a_batch_sent_anew_has_the_lines_of_an_earlier_one(files):
    contents = [
        sorted(json.dumps(line) for line in batch["lines"]) for batch in files.batches.values()
    ]
    for position, expected in enumerate(files.expected["batches"].values()):
        is_anew = expected["outcomes"]["duplicate"] == len(expected["lines"])
        assert (contents[position] in contents[:position]) == is_anew
    assert len({batch["batch_id"] for batch in files.batches.values()}) == len(files.batches)


def test_every_post_of_a_batch_expects_its_one_answer(files):
    for event in files.of_type("batch"):
        expected = files.expected["batches"][event["file"]]
        assert event["expect_outcomes"] == expected["outcomes"]
        outcomes = collections.Counter(result["outcome"] for result in expected["lines"])
        assert {name: n for name, n in expected["outcomes"].items() if n} == outcomes


# What must hold for any model of the day


def test_what_the_instruments_gave_is_what_they_lost(files):
    given, postings = collections.Counter(), collections.Counter()
    for event in files.of_type("redeem"):
        given[event["number"]] += event["amount_minor"]
        postings[event["number"]] += 1
    for line, result in files.first_results:
        if result["outcome"] == "applied":
            assert result["funded_minor"] + result["shortfall_minor"] == line["amount_minor"]
            given[line["number"]] += result["funded_minor"]
            postings[line["number"]] += 1
    for record in files.instruments:
        end = files.expected["instruments"][record["number"]]
        assert record["amount_minor"] - given[record["number"]] == end["balance_minor"]
        assert end["balance_minor"] >= 0
        assert end["postings"] == 1 + postings[record["number"]]


def test_totals_are_the_sum_of_the_lines(files):
    funded, shortfall = collections.Counter(), collections.Counter()
    for event in files.of_type("redeem"):
        funded[event["currency"]] += event["amount_minor"]
    for line, result in files.first_results:
        if result["outcome"] == "applied":
            funded[line["currency"]] += result["funded_minor"]
            shortfall[line["currency"]] += result["shortfall_minor"]
    for currency, total in files.expected["totals"].items():
        assert total == {
            "redeemed_minor": funded[currency] + shortfall[currency],
            "funded_minor": funded[currency],
            "shortfall_minor": shortfall[currency],
        }


def test_cases_are_the_lines_that_open_one(files):
    opening = [result for _, result in files.results if result["opens_case"]]
    codes = collections.Counter(code for result in opening for code in result["codes"])
    assert files.expected["cases"]["total"] == len(opening)
    assert files.expected["cases"]["per_code"] == codes
    for _, result in files.first_results:
        doubtful = set(result["codes"]) & {"over_grant", "no_lock", "instrument_applied"}
        needs_case = result["outcome"] == "held" or result["shortfall_minor"] > 0 or bool(doubtful)
        assert result["opens_case"] == needs_case


def test_a_credit_memo_is_used_in_full_or_not_at_all(files):
    for record in files.instruments:
        if record["kind"] == "credit_memo":
            end = files.expected["instruments"][record["number"]]
            is_used = end["status"] == "applied"
            assert end["balance_minor"] == (0 if is_used else record["amount_minor"])
            assert is_used == (end["postings"] > 1)


# The model itself, on days small enough to do in the head

CARD = {"kind": "gift_card", "number": "6006000000000001", "currency": "SEK", "amount_minor": 100}
MEMO = {"kind": "credit_memo", "number": "ABCDEFGHJKMN", "currency": "SEK", "amount_minor": 100}


def a_line(amount_minor=60, sale="A", terminal_id="T01", sequence=1, **changes):
    line = {
        "terminal_id": terminal_id,
        "journal_id": "j",
        "sequence": sequence,
        "transaction_id": sale,
        "line": 1,
        "kind": "gift_card",
        "number": CARD["number"],
        "amount_minor": amount_minor,
        "currency": "SEK",
    }
    return {**line, **changes}


def a_lock(sale="A", terminal_id="T01", expect="granted"):
    return {**a_line(sale=sale, terminal_id=terminal_id), "type": "lock", "expect": expect}


def play(*events):
    """Play events on a card and a memo of 100; a list is a batch. Returns: last results, day."""
    day, results = model.open_day([CARD, MEMO]), None
    for ordinal, event in enumerate(events):
        if isinstance(event, list):
            body = {"batch_id": str(ordinal), "store_id": "S001", "lines": event}
            results = model.post_batch(day, body)
        else:
            model.play_event(day, event, {})
    return results, day


def told(results):
    return [
        (result["outcome"], result["codes"], result.get("funded_minor"), result["opens_case"])
        for result in results
    ]


def lock_after(*events):
    _, day = play(*events)
    return live_lock(day, CARD["number"])


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([a_lock(), [a_line()]], [("applied", [], 60, False)]),
        ([a_lock(), [a_line(130)]], [("applied", ["over_grant"], 100, True)]),
        (
            [a_lock(), {**a_line(), "type": "release"}, [a_line()]],
            [("applied", ["stale_lock"], 60, False)],
        ),
        (
            [a_lock(), {**a_line(), "type": "release"}, [a_line(130)]],
            [("applied", ["stale_lock"], 100, True)],
        ),
        ([[a_line()]], [("applied", ["no_lock"], 60, True)]),
        ([[a_line(number="6006000000000002")]], [("held", ["unknown_instrument"], None, True)]),
        ([[a_line(currency="EUR")]], [("held", ["currency_mismatch"], None, True)]),
        (
            [a_lock(), {**a_line(), "type": "redeem"}, [a_line()]],
            [("duplicate", [], 60, False)],
        ),
        (
            [a_lock(), {**a_line(), "type": "redeem"}, [a_line(61)]],
            [("held", ["business_key_reused"], None, True)],
        ),
        (
            [[a_line(sale="B", terminal_id="T02"), a_line()]],
            [("applied", ["no_lock"], 40, True), ("applied", ["no_lock"], 60, True)],
        ),
        (
            [a_lock(), [a_line(80), a_line(50, sale="B", terminal_id="T00")]],
            [("applied", [], 50, True), ("applied", ["no_lock"], 50, True)],
        ),
        (
            [[a_line(60, sequence=2), a_line(70), a_line(60, sequence=2)]],
            [
                ("held", ["business_key_reused"], None, True),
                ("applied", ["no_lock"], 70, True),
                ("duplicate", ["business_key_reused"], None, False),
            ],
        ),
        (
            [
                [
                    a_line(100, kind="credit_memo", number=MEMO["number"]),
                    a_line(100, "B", kind="credit_memo", number=MEMO["number"], sequence=2),
                ]
            ],
            [
                ("applied", ["no_lock"], 100, True),
                ("applied", ["no_lock", "instrument_applied"], 0, True),
            ],
        ),
    ],
)
def test_the_model_judges_a_line_by_the_table(events, expected):
    results, _ = play(*events)
    assert told(results) == expected


def test_a_settled_line_consumes_its_own_lock_and_no_other():
    assert lock_after(a_lock(), [a_line()]) is None
    assert lock_after(a_lock(), [a_line(sale="B")])["transaction_id"] == "A"


def test_a_held_line_keeps_its_lock_and_its_repeat_releases_it():
    wrong, right = a_line(currency="EUR"), a_line(sequence=2)
    assert lock_after(a_lock(), [wrong])["transaction_id"] == "A"
    assert lock_after(a_lock(), [wrong, right])["transaction_id"] == "A"
    assert lock_after(a_lock(), [wrong, wrong]) is None


def test_a_repeat_keeps_the_lock_of_another_line():
    wrong = a_line(currency="EUR", line=2)
    assert lock_after(a_lock(), [wrong, wrong])["line"] == 1


def test_a_repeat_keeps_the_lock_of_another_transaction():
    holder = lock_after(a_lock(), [a_line(20)], a_lock("B", "T02"), [a_line(20)])
    assert holder["transaction_id"] == "B"


def test_a_second_till_is_refused_while_the_lock_lives():
    assert lock_after(a_lock(), a_lock("B", "T02", "held_by_other"))["transaction_id"] == "A"


def test_the_same_batch_is_answered_once_and_for_all():
    day = model.open_day([CARD])
    body = {"batch_id": "b", "store_id": "S001", "lines": [a_line()]}
    assert model.post_batch(day, body) is model.post_batch(day, body)
    with pytest.raises(ValueError, match="reused"):
        model.post_batch(day, {**body, "lines": [a_line(61)]})


@pytest.mark.parametrize(
    ("events", "complaint"),
    [
        ([a_lock(), a_lock()], "lock twice"),
        ([a_lock(), a_lock("B", "T02")], "this lock is held_by_other"),
        ([{**a_line(), "type": "redeem"}], "would decline"),
        ([a_lock(), {**a_line(101), "type": "redeem"}], "would decline"),
        ([{**a_line(), "type": "release"}], "no own lock"),
        ([[a_line(60, kind="credit_memo", number=MEMO["number"])]], "credit memo in full"),
        ([a_lock(), [a_line(), a_line(line=2, sequence=2)]], "redeem twice"),
    ],
)
def test_the_model_does_not_guess_at_what_the_day_does_not_contain(events, complaint):
    with pytest.raises(ValueError, match=complaint):
        play(*events)
