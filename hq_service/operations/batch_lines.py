"""The lines of an offline batch: as they come, and as they are settled, in bounded memory."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from hq_service.domain.errors import InvalidRequest, MalformedBody
from hq_service.domain.judgement import Context
from hq_service.domain.keyring import Keyring
from hq_service.domain.model import Line, UnreadableLine
from hq_service.domain.reading import (
    LINE_BYTES_MAX,
    ControlTotals,
    Envelope,
    envelope_of,
    malformed_line,
    read_line,
    split_lines,
    totals_of,
)
from hq_service.operations.documents import read_json
from hq_service.store import batches

Lines = Sequence[Line | UnreadableLine]

DRY_RUN_LINES_MAX = 10_000

WINDOW_LINES = 4 * batches.PART_LINES
"""How many lines of a long batch are in memory while it is settled, in whatever order it came."""


@dataclass(frozen=True, slots=True)
class ReceivedLines:
    """The lines of a batch, packed as they are stored, with what HQ counted.

    Shapes: ``kept`` are the lines themselves; None if they are too many to be kept.
    """

    parts: Sequence[bytes]
    counted: ControlTotals
    kept: Lines | None

    def __len__(self) -> int:
        return self.counted.lines_count


@dataclass(frozen=True, slots=True)
class BatchReader:
    """Reads batches as they come.

    Shapes: of a batch of more than ``kept_max`` lines, or of a dry run of more than
            `DRY_RUN_LINES_MAX`, nothing but the packed lines stays in memory.
    """

    keyring: Keyring
    now: datetime
    lines_max: int
    kept_max: int

    def read(self, pieces: Iterable[bytes], *, is_ndjson: bool) -> tuple[Envelope, ReceivedLines]:
        """Return the envelope and the lines of a batch; the card numbers in them are gone.

        Of the body as NDJSON no more than a piece or a line is in memory.

        Raises:  MalformedBody, InvalidRequest, TooLarge for a body that is no batch.
        """
        return self._read_ndjson(pieces) if is_ndjson else self._read_json(b"".join(pieces))

    def _read_json(self, body: bytes) -> tuple[Envelope, ReceivedLines]:
        raw = read_json(body)
        envelope = envelope_of(raw, hashlib.sha256(body).digest(), self.lines_max)
        del body
        return envelope, self._take_in(envelope, _let_go(raw.pop("lines")))

    def _read_ndjson(self, pieces: Iterable[bytes]) -> tuple[Envelope, ReceivedLines]:
        digest = hashlib.sha256()
        texts = split_lines(_digested(pieces, digest.update))
        # What is wrong with the body as a whole is told first: so all of it is read, come what may.
        try:
            raw = _first_document(next(texts))
        except MalformedBody:
            deque(texts, maxlen=0)
            raise
        behind = (text for text in texts if not _is_blank(text))
        try:
            envelope = envelope_of(raw, b"", self.lines_max, lines_behind=1)
        except InvalidRequest:
            envelope_of(raw, b"", self.lines_max, lines_behind=_count(behind))
            raise
        lines = self._take_in(envelope, map(_document, islice(behind, self.lines_max)))
        lines_count = len(lines) + _count(behind)
        return envelope_of(raw, digest.digest(), self.lines_max, lines_count), lines

    def _take_in(self, envelope: Envelope, raw_lines: Iterable[object]) -> ReceivedLines:
        """Read and pack lines one by one."""
        kept_max = DRY_RUN_LINES_MAX if envelope.dry_run else self.kept_max
        lines = (
            read_line(raw, position, envelope.store_id, self.keyring, self.now)
            for position, raw in enumerate(raw_lines)
        )
        parts: list[bytes] = []
        amounts: Counter[str] = Counter()
        lines_count = 0
        kept: list[Line | UnreadableLine] | None = []
        while part := list(islice(lines, batches.PART_LINES)):
            parts.append(batches.packed_part(part))
            counted = totals_of(part)
            amounts.update(counted.amounts_minor)
            lines_count += counted.lines_count
            if lines_count > kept_max:
                kept = None
            if kept is not None:
                kept += part
            part.clear()  # or it would be in memory beside the next one
        return ReceivedLines(parts, ControlTotals(lines_count, dict(amounts)), kept)


def _digested(pieces: Iterable[bytes], digest: Callable[[bytes], None]) -> Iterator[bytes]:
    for piece in pieces:
        digest(piece)
        yield piece


def _let_go(raw_lines: list[object]) -> Iterator[object]:
    """Give lines from first to last, and forget each: they are several times as large as read."""
    raw_lines.reverse()
    while raw_lines:
        yield raw_lines.pop()


def _is_blank(text: bytes) -> bool:
    # Of what is too long nobody knows the end.
    return len(text) <= LINE_BYTES_MAX and (not text or text.isspace())


def _count(texts: Iterator[bytes]) -> int:
    return sum(1 for _ in texts)


def _first_document(text: bytes) -> object:
    if len(text) > LINE_BYTES_MAX:
        raise MalformedBody(
            f"The first line, which is the envelope, is longer than {LINE_BYTES_MAX} bytes; the"
            " lines follow behind it, one a line."
        )
    return read_json(text)


def _document(text: bytes) -> object:
    if len(text) > LINE_BYTES_MAX:
        return malformed_line(text)
    try:
        return read_json(text)
    except MalformedBody:
        return malformed_line(text)


class OrderedLines:
    """The lines of a batch in the order in which they are settled, at hand or taken as needed.

    Shapes: ``positions`` are their places in the sender's array, in that order; ``at_hand`` all
            the lines, or none of them; ``context`` is what all of them are judged by, None until
            it is known; ``may_end_a_wait`` whether held lines may have waited for what was settled.
    """

    def __init__(
        self,
        store_id: str,
        batch_id: str,
        positions: Sequence[int],
        terminal_ids: Set[str],
        at_hand: Lines = (),
    ) -> None:
        self.terminal_ids = terminal_ids
        self.context: Context | None = None
        self.may_end_a_wait = False
        self._batch = (store_id, batch_id)
        self._positions = positions
        self._window, self._window_start = at_hand, 0

    def __getitem__(self, chunk: slice) -> Lines:
        """Return some lines next to each other. What is not at hand is read in the transaction
        that is under way, with what follows it.
        """
        start, stop, _ = chunk.indices(len(self._positions))
        if not self._window_start <= start <= stop <= self._window_start + len(self._window):
            wanted = self._positions[start : max(stop, start + WINDOW_LINES)]
            self._window = batches.lines_at(*self._batch, wanted)
            self._window_start = start
        return self._window[start - self._window_start : stop - self._window_start]
