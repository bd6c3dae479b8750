"""The service as a textbook would write it: the baseline that its own paths are compared with.

The same tables, the same bodies, the same rules for a redemption under a lock, signed in by the
same keys. Flask-SQLAlchemy with what it brings: get, with_for_update, flush, commit; marshmallow
for what comes and goes. A batch commits row by row. It writes no line of the batch and no case,
which makes it cheaper than it would have to be.
"""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime
from typing import Any

from flask import Flask, Response, jsonify, request
from marshmallow import EXCLUDE, Schema, ValidationError, fields, validate
from sqlalchemy import select

from hq_service.domain.numbers import bucket_of
from hq_service.settings import settings_from
from hq_service.store.database import db
from hq_service.store.tables import ApiKey, Instrument, LiveLock, Posting


class RedemptionSchema(Schema):
    """A redemption."""

    store_id = fields.String(required=True, validate=validate.Length(1, 64))
    terminal_id = fields.String(required=True, validate=validate.Length(1, 64))
    transaction_id = fields.String(required=True, validate=validate.Length(1, 64))
    line = fields.Integer(required=True, strict=True, validate=validate.Range(1, 9_999))
    instrument_id = fields.UUID(required=True)
    lock_id = fields.UUID(required=True)
    amount_minor = fields.Integer(required=True, strict=True, validate=validate.Range(1))
    currency = fields.String(required=True, validate=validate.Length(equal=3))


class LineSchema(RedemptionSchema):
    """One line of a batch."""

    class Meta:
        """The journal is not looked at."""

        unknown = EXCLUDE

    store_id = fields.String()
    lock_id = fields.UUID(load_default=None)
    concluded_at = fields.AwareDateTime(required=True)


class BatchSchema(Schema):
    """A batch."""

    batch_id = fields.String(required=True)
    store_id = fields.String(required=True)
    lines = fields.List(fields.Nested(LineSchema), required=True)


class PostedSchema(Schema):
    """What was posted."""

    store_id = fields.String()
    terminal_id = fields.String()
    transaction_id = fields.String()
    line = fields.Integer()
    operation = fields.String()
    instrument_id = fields.UUID()
    amount_minor = fields.Integer()
    currency = fields.String()
    balance_after_minor = fields.Integer()


class Refused(Exception):
    """The rules say no."""


redemption_schema = RedemptionSchema()
batch_schema = BatchSchema()
posted_schema = PostedSchema()


def from_environment() -> Flask:
    """Return the application, on the database and with the settings of the service."""
    app = Flask(__name__, static_folder=None)
    app.config["SQLALCHEMY_DATABASE_URI"] = settings_from(os.environ).database_url
    db.init_app(app)
    app.post("/redemptions")(redeem)
    app.post("/batches")(post_batch)
    app.register_error_handler(ValidationError, lambda error: (jsonify(error.messages), 422))
    app.register_error_handler(Refused, lambda error: (jsonify(code=str(error)), 409))
    return app


def redeem() -> tuple[Response, int]:
    """Conclude one redemption under its lock."""
    sign_in()
    wish = redemption_schema.load(request.get_json())
    posting = conclude(wish, must_be_locked=True)
    db.session.flush()
    body = posted_schema.dump(posting)
    db.session.commit()
    return jsonify(body), 201


def post_batch() -> tuple[Response, int]:
    """Settle lines that were concluded offline, one after the other."""
    sign_in()
    batch = batch_schema.load(request.get_json())
    results = []
    for line in batch["lines"]:
        posting = conclude({**line, "store_id": batch["store_id"]}, must_be_locked=False)
        db.session.flush()
        results.append(posted_schema.dump(posting))
        db.session.commit()
    return jsonify(results=results), 201


def sign_in() -> None:
    """Find the API key of the request."""
    key = request.headers.get("Authorization", "").removeprefix("Bearer ")
    _, key_id, secret = key.split("_", 2)
    known = db.session.get(ApiKey, key_id)
    digest = hashlib.sha256(secret.encode()).digest()
    if known is None or known.revoked_at is not None or known.secret_sha256 != digest:
        raise Refused("unauthenticated")


def conclude(wish: dict[str, Any], *, must_be_locked: bool) -> Posting:
    """Take the amount off the balance, free the card and post that, or return what was posted."""
    known = db.session.scalars(
        select(Posting).where(
            Posting.store_id == wish["store_id"],
            Posting.terminal_id == wish["terminal_id"],
            Posting.transaction_id == wish["transaction_id"],
            Posting.line == wish["line"],
            Posting.entry == "original",
        )
    ).first()
    if known is not None:
        return known
    identity = (bucket_of(wish["instrument_id"]), wish["instrument_id"])
    card = db.session.get(Instrument, identity, with_for_update=True)
    if card is None or card.status != "active" or card.currency != wish["currency"]:
        raise Refused("instrument_not_found")
    is_its_own = card.lock_id is not None and card.lock_transaction_id == wish["transaction_id"]
    if must_be_locked and (not is_its_own or card.lock_id != wish["lock_id"]):
        raise Refused("lock_lost")
    if card.balance_minor < wish["amount_minor"]:
        raise Refused("insufficient_balance")
    posting = Posting(
        bucket=card.bucket,
        instrument_id=card.instrument_id,
        version=card.version + 1,
        store_id=wish["store_id"],
        terminal_id=wish["terminal_id"],
        transaction_id=wish["transaction_id"],
        line=wish["line"],
        entry="original",
        operation="redeem",
        currency=wish["currency"],
        amount_minor=wish["amount_minor"],
        funded_minor=wish["amount_minor"],
        shortfall_minor=0,
        change_minor=-wish["amount_minor"],
        balance_after_minor=card.balance_minor - wish["amount_minor"],
        codes=None,
        posted_at=datetime.now(UTC),
        concluded_at=wish.get("concluded_at"),
        lock_id=card.lock_id if is_its_own else None,
        locked_at=card.locked_at if is_its_own else None,
    )
    card.balance_minor -= wish["amount_minor"]
    card.version += 1
    if is_its_own:
        unlock(card)
    db.session.add(posting)
    return posting


def unlock(card: Instrument) -> None:
    """Take the lock off a card and off the list."""
    live = db.session.get(LiveLock, (card.bucket, card.instrument_id))
    if live is not None:
        db.session.delete(live)
    card.lock_id = card.lock_store_id = card.lock_terminal_id = card.lock_transaction_id = None
    card.lock_line = card.lock_purpose = card.lock_amount_minor = card.locked_at = None
    card.lock_grant_until = card.lock_grant_revision = None
