"""Numbers become ids and are masked; grants are signed per terminal."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hq_service.domain import grants
from hq_service.domain.grants import GrantKeys
from hq_service.domain.numbers import (
    bucket_of,
    instrument_id_of,
    mask,
    normalise,
    number_made_for,
    uuid7,
)
from tests.unit.builders import KEYRING, NOW, a_grant, a_key

SECRET = bytes(range(32))


@pytest.mark.parametrize(
    ("written", "normalised"),
    [
        ("6006 0000-0000 0001", "6006000000000001"),
        ("cm000001", "CM000001"),
        ("1234567", None),
        ("1" * 33, None),
        ("6006_00000001", None),
        ("\uff16\uff10\uff10\uff16" * 3, None),
        # Upper case makes other letters of them: SSSSSSSS, FIFIFIFI, IIIIIIII, SSSSSSSS, KKKKKKKK.
        ("\u00df" * 4, None),
        ("\ufb01" * 4, None),
        ("\u0131" * 8, None),
        ("\u017f" * 8, None),
        ("\u212a" * 8, None),
        ("6006 0000 0000 000\u00df", None),
        ("", None),
    ],
)
def test_numbers_are_normalised_or_refused(written: str, normalised: str | None) -> None:
    assert normalise(written) == normalised


@given(st.text(max_size=40))
def test_what_is_normalised_was_written_in_plain_letters_and_digits(written: str) -> None:
    found = normalise(written)
    if found is not None:
        assert written.isascii()
        assert written.replace(" ", "").replace("-", "").upper() == found


def test_the_id_depends_on_secret_kind_and_number_and_on_nothing_else() -> None:
    one = instrument_id_of(SECRET, "gift_card", "6006000000000001")
    assert one == instrument_id_of(SECRET, "gift_card", "6006000000000001")
    assert one != instrument_id_of(SECRET, "credit_memo", "6006000000000001")
    assert one != instrument_id_of(bytes(32), "gift_card", "6006000000000001")


@given(st.uuids())
def test_the_bucket_is_the_top_ten_bits(instrument_id: UUID) -> None:
    raw = instrument_id.bytes
    assert bucket_of(instrument_id) == (raw[0] << 2) | (raw[1] >> 6)


def test_a_made_number_is_the_same_each_time_and_another_for_every_key() -> None:
    made = number_made_for(SECRET, "credit_memo", a_key())
    assert made == number_made_for(SECRET, "credit_memo", a_key())
    assert normalise(made) == made
    assert len(made) == 16
    others = [
        number_made_for(SECRET, "credit_memo", a_key(line=2)),
        number_made_for(SECRET, "credit_memo", a_key("X1", store_id="S0", terminal_id="01T01")),
        number_made_for(SECRET, "gift_card", a_key()),
        number_made_for(bytes(32), "credit_memo", a_key()),
    ]
    assert made not in others


def test_every_made_number_is_masked_however_it_is_written() -> None:
    for line in range(1, 2_001):  # four of which would have no digit
        made = number_made_for(SECRET, "gift_card", a_key(line=line))
        assert normalise(made) == made
        fours = [made[place : place + 4] for place in range(0, 16, 4)]
        for written in (made, made.lower(), *(between.join(fours) for between in " -")):
            assert mask(f"number {written}, torn") == f"number ***{written[-4:]}, torn"


@pytest.mark.parametrize("word", ["card", "CARD", "memo", "sent", "9999", "from"])
def test_a_word_of_four_letters_beside_a_number_shows_nothing_of_it(word: str) -> None:
    for text in (
        f"{word} 5VT3 SPKN 3ZPN A8WZ",
        f"5VT3 SPKN 3ZPN A8WZ {word}",
        f"the {word} {word} 5vt3 spkn 3zpn a8wz {word}, said she",
    ):
        masked = mask(text).upper()
        assert not any(group in masked for group in ("5VT3", "SPKN", "3ZPN")), masked


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ('{"number":"6006000000000001"}', '{"number":"***0001"}'),
        ('{"number": "AB"}', '{"number": "***"}'),
        ('{"card":6006000000000001}', '{"card":***0001}'),
        ('{"note":"6006 0000 0000 0001 paid"}', '{"note":"***0001 paid"}'),
        ('{"note":"Z9Y8X7W6V5T4S3R2"}', '{"note":"***S3R2"}'),
        ('{"amount_minor":1234567}', '{"amount_minor":1234567}'),
        # A UUID is an id and no number, however many digits stand in a row in it.
        ("0192F0AB-1234-7123-8123-123456789012 paid", "0192F0AB-1234-7123-8123-123456789012 paid"),
        ("12345678-1234-1234-1234-123456789012", "***9012"),
        ("60060000-0000-0001", "***0001"),
        (
            '{"number":"0192f0ab-1234-7123-8123-123456789012"}',
            '{"number":"***9012"}',
        ),
    ],
)
def test_whatever_may_be_a_card_number_is_masked(text: str, masked: str) -> None:
    assert mask(text) == masked


@given(st.uuids().filter(lambda one: any(letter in "abcdef" for letter in str(one))))
def test_an_instrument_id_in_a_line_that_is_kept_stays(instrument_id: UUID) -> None:
    line = f'{{"instrument_id":"{instrument_id}","card":6006000000000001}}'
    assert mask(line) == f'{{"instrument_id":"{instrument_id}","card":***0001}}'


@given(st.text(alphabet="0123456789 ", min_size=8, max_size=40))
def test_no_run_of_eight_digits_survives_masking(text: str) -> None:
    masked = mask(text)
    runs = "".join(one if one.isdigit() else "|" for one in masked).split("|")
    assert all(len(run) < 8 for run in runs)


def test_uuid7_sorts_by_time_and_says_its_version() -> None:
    earlier = uuid7(NOW, b"\xff" * 10)
    later = uuid7(NOW + timedelta(milliseconds=1), b"\x00" * 10)
    assert earlier < later
    assert (earlier.version, earlier.variant) == (7, UUID(int=0, version=4).variant)


def test_a_grant_comes_back_as_it_was_signed() -> None:
    grant = a_grant()
    assert KEYRING.grant(KEYRING.sign(grant), grant.key) == grant


def test_a_grant_of_another_terminal_or_store_does_not_verify() -> None:
    text = KEYRING.sign(a_grant())
    assert KEYRING.grant(text, a_key(terminal_id="T02")) is None
    assert KEYRING.grant(text, a_key(store_id="S002")) is None


@given(st.data())
def test_a_grant_with_one_character_changed_does_not_verify(data: st.DataObject) -> None:
    text = KEYRING.sign(a_grant())
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters().filter(lambda one: one != text[place]))
    assert KEYRING.grant(text[:place] + other + text[place + 1 :], a_key()) is None


@given(st.text(max_size=60))
def test_no_text_whatever_breaks_verification(text: str) -> None:
    assert KEYRING.grant(text, a_key()) is None


def test_grant_keys_rotate() -> None:
    old = GrantKeys({"k1": bytes(32)})
    both = GrantKeys({"k2": bytes(range(32)), "k1": bytes(32)})
    grant = a_grant()
    text = grants.sign(grant, old)
    assert grants.verify(text, "S001", "T01", both) == grant
    assert grants.sign(grant, both).startswith("g1.k2.")
    assert grants.verify(text, "S001", "T01", GrantKeys({"k2": bytes(range(32))})) is None
