"""The application: the one place where the layers meet."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

from flask import Flask
from flask_smorest import Api

from hq_service import __version__, observability
from hq_service.api import (
    distribution,
    health,
    heartbeats,
    offline_batches,
    parameters,
    problems,
    registers,
    selling,
)
from hq_service.api.admin import audit as admin_audit
from hq_service.api.admin import cache_resets as admin_cache_resets
from hq_service.api.admin import cases as admin_cases
from hq_service.api.admin import connection as admin_connection
from hq_service.api.admin import distribution as admin_distribution
from hq_service.api.admin import instruments as admin_instruments
from hq_service.api.admin import keys as admin_keys
from hq_service.api.admin import locks as admin_locks
from hq_service.api.admin import offline_profiles as admin_offline_profiles
from hq_service.api.admin import parameters as admin_parameters
from hq_service.api.admin import registers as admin_registers
from hq_service.api.admin import stores as admin_stores
from hq_service.api.at_once import AtOnce
from hq_service.api.description import OperationsPlugin
from hq_service.api.schemas.common import ProblemSchema
from hq_service.api.schemas.selling import OfflineBatchRequestSchema
from hq_service.settings import Settings, settings_from
from hq_service.store import database

DATABASE_ERRORS = database.DATABASE_ERRORS
"""What a command may meet that has no operation around it."""

BLUEPRINTS = (
    health.blueprint,
    selling.blueprint,
    offline_batches.blueprint,
    parameters.blueprint,
    registers.blueprint,
    admin_parameters.blueprint,
    admin_instruments.blueprint,
    admin_cases.blueprint,
    admin_locks.blueprint,
    distribution.blueprint,
    admin_distribution.blueprint,
    admin_stores.blueprint,
    admin_registers.blueprint,
    admin_offline_profiles.blueprint,
    admin_keys.blueprint,
    admin_audit.blueprint,
    heartbeats.blueprint,
    admin_connection.blueprint,
    admin_cache_resets.blueprint,
)

SECURITY = {"type": "http", "scheme": "bearer", "description": "An API key."}


class HqApi(Api):
    """The OpenAPI description, with our own problem documents in it."""

    ERROR_SCHEMA = ProblemSchema


def create_app(settings: Settings) -> Flask:
    """Return the application for some settings; nothing is read from anywhere else."""
    app = Flask(__name__, static_folder=None)
    app.config.update(
        SETTINGS=settings,
        SQLALCHEMY_DATABASE_URI=settings.database_url,
        SQLALCHEMY_ENGINE_OPTIONS=engine_options(settings),
        API_TITLE="HQ balance and lock authority",
        API_VERSION=__version__,
        OPENAPI_VERSION="3.1.0",
        OPENAPI_URL_PREFIX="/",
        OPENAPI_JSON_PATH="openapi.json",
        API_SPEC_OPTIONS={
            "components": {"securitySchemes": {"apiKey": SECURITY}},
            "security": [{"apiKey": []}],
            "info": {
                "description": "The authority over gift card and credit memo balances and locks.",
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
        },
    )
    database.db.init_app(app)
    with app.app_context():
        engine = database.db.engine
    database.listen(engine)
    database.watchdog.deadline_seconds = settings.commit_deadline_seconds
    observability.register(app)
    api = HqApi(app, spec_kwargs={"extra_plugins": [OperationsPlugin(app)]})
    api.spec.components.schema("OfflineBatchRequest", schema=OfflineBatchRequestSchema)
    for blueprint in BLUEPRINTS:
        api.register_blueprint(blueprint)
    problems.register(app)
    at_once = AtOnce(app, settings, partial(database.work_with, engine))
    app.wsgi_app = at_once  # type: ignore[method-assign]
    return app


def engine_options(settings: Settings) -> dict[str, Any]:
    """Return how connections are pooled: one per request thread; `database.listen` checks each
    before use."""
    return {
        "pool_size": settings.threads,
        "max_overflow": 2,
        "pool_timeout": 3,
        # An error's text goes to logs; what was bound to a statement must not.
        "hide_parameters": True,
        "connect_args": {"connect_timeout": 3, "application_name": "hq-service"},
    }


def from_environment() -> Flask:
    """Return the application as the environment describes it: what gunicorn calls."""
    settings = settings_from(os.environ)
    observability.configure_logging(settings.log_level)
    return create_app(settings)


def disconnect() -> None:
    """Close the connections of the current application: for commands that end."""
    database.db.session.remove()
    database.db.engine.dispose()
