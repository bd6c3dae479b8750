"""The arrows of docs/architecture.md, read from the source: what imports what, and where SQL is."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "hq_service"
SQL_FILES = sorted((PACKAGE / "store" / "sql").glob("*.sql"))
FUNCTION_LINES_MAX = 70

# Layer -> what of this package it may import. Whatever has no row puts the layers together.
ARROWS = {
    "domain": {"domain"},
    "store": {"domain", "store"},
    "operations": {"domain", "store", "operations"},
    "observability": {"domain", "observability"},
    "api": {"domain", "operations", "api", "settings", "observability"},
    "admin": {"domain", "operations", "api", "admin", "settings"},
    "terminal": {"domain", "terminal"},
    "simulation": {"domain", "terminal", "simulation"},
}
DATABASE_LIBRARIES = {"alembic", "flask_sqlalchemy", "psycopg", "sqlalchemy"}
# Who else than store may import which of them, and why.
DATABASE_LIBRARIES_ELSEWHERE = {
    "embedded_postgres": {"psycopg"},  # starts the server and creates its databases
    "cli": {"alembic"},  # `hq db migrate`
}
# A server's own statements, before there is any table of ours; and a till's SQLite file, which is
# no part of the service.
SQL_ELSEWHERE = {"hq_service.embedded_postgres", "hq_service.terminal.store"}
SQL = re.compile(
    r"\b(SELECT|INSERT\s+INTO|DELETE\s+FROM|UPDATE\s+\w+\s+SET|LOCK\s+TABLE|TRUNCATE\s+\w+"
    r"|(CREATE|ALTER|DROP)\s+(TABLE|INDEX|ROLE|DATABASE|VIEW|FUNCTION))\b"
)
PREPARED = "hq_service.store.prepared"
# Statements that lock rows, and the end of each: many rows in one order, or one row by its key.
ROW_LOCKS = {
    "load_instruments_for_update": r"ORDER BY instrument\.instrument_id FOR UPDATE OF instrument",
    "load_journals_for_update": (
        r"ORDER BY journal\.terminal_id, journal\.journal_id FOR UPDATE OF journal"
    ),
    "lock_batch": (
        r"FROM offline_batches WHERE store_id = %\(store_id\)s AND batch_id = %\(batch_id\)s"
        r" FOR UPDATE"
    ),
    "lock_case": r"FROM cases WHERE case_id = %\(case_id\)s FOR UPDATE",
}
# Functions that lock rows without a statement file: one by its key, or many in one order.
_DISTRIBUTION = "hq_service.store.distribution"
ONE_ROW_LOCKED = {
    f"{_DISTRIBUTION}.lock_schedule",
    f"{_DISTRIBUTION}.lock_due_schedule",
    f"{_DISTRIBUTION}.lock_store",
    f"{_DISTRIBUTION}.lock_session",
}
MANY_ROWS_LOCKED = {f"{_DISTRIBUTION}.lock_stores", f"{_DISTRIBUTION}.lock_open_sessions"}

MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): ast.parse(path.read_text("utf-8"))
    for path in sorted(PACKAGE.rglob("*.py"))
}


def layer_of(module: str) -> str:
    """Return the part of the package that a module is in: ``hq_service.api.auth`` is in api."""
    return [*module.split("."), ""][1]


def imports_of(tree: ast.Module) -> set[str]:
    """Return the dotted names of everything that a module imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, "imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def layers_imported(tree: ast.Module) -> set[str]:
    ours = {layer_of(name) for name in imports_of(tree) if name.startswith("hq_service.")}
    return ours & ({layer_of(module) for module in MODULES} - {"__init__"})


def libraries_imported(tree: ast.Module) -> set[str]:
    return {name.split(".")[0] for name in imports_of(tree)} - {"hq_service", "__future__"}


def texts_of(tree: ast.Module) -> Iterator[str]:
    """Give every literal text of a module but the docstrings."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in docstrings:
            if isinstance(node.value, str):
                yield node.value
            elif isinstance(node.value, bytes):
                yield node.value.decode("latin-1")


def calls_of(tree: ast.Module, *names: str) -> list[ast.Call]:
    """Return the calls of functions or methods of some names."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [
        call
        for call in calls
        if (isinstance(call.func, ast.Attribute) and call.func.attr in names)
        or (isinstance(call.func, ast.Name) and call.func.id in names)
    ]


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_along_the_arrows_only(module: str) -> None:
    allowed = ARROWS.get(layer_of(module))
    if allowed is not None:
        assert layers_imported(MODULES[module]) <= allowed


def test_only_the_application_knows_both_the_api_and_the_store() -> None:
    both = {name for name, tree in MODULES.items() if {"api", "store"} <= layers_imported(tree)}
    assert both == {"hq_service.app"}


def test_the_command_line_starts_without_the_application() -> None:
    script = "import sys, hq_service.cli; print(*sys.modules)"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "click" in done.stdout.split()
    assert not {"alembic", "flask", "marshmallow", "sqlalchemy"} & set(done.stdout.split())


def test_the_domain_needs_the_standard_library_only() -> None:
    for module, tree in MODULES.items():
        if layer_of(module) == "domain":
            assert libraries_imported(tree) <= set(sys.stdlib_module_names), module


def test_operations_know_nothing_of_http() -> None:
    http = {"flask", "flask_smorest", "werkzeug", "webargs", "marshmallow", "httpx"}
    for module, tree in MODULES.items():
        if layer_of(module) in ("operations", "store", "domain"):
            assert not libraries_imported(tree) & http, module


def test_nobody_but_the_store_knows_the_database_libraries() -> None:
    for module, tree in MODULES.items():
        layer = layer_of(module)
        if layer != "store":
            found = libraries_imported(tree) & DATABASE_LIBRARIES
            assert found <= DATABASE_LIBRARIES_ELSEWHERE.get(layer, set()), module


def test_there_is_sql_in_the_store_only() -> None:
    for module, tree in MODULES.items():
        is_elsewhere = any(f"{module}.".startswith(f"{one}.") for one in SQL_ELSEWHERE)
        if layer_of(module) != "store" and not is_elsewhere:
            assert [text for text in texts_of(tree) if SQL.search(text)] == [], module


def test_one_module_commits_and_none_cancels() -> None:
    committing = {module for module, tree in MODULES.items() if calls_of(tree, "commit")}
    assert committing == {"hq_service.store.database"}
    for module, tree in MODULES.items():
        # PostgreSQL answers a cancelled COMMIT with success although no standby has it.
        assert calls_of(tree, "cancel", "cancel_safe") == [], module


def test_rows_are_locked_in_one_order() -> None:
    locking = {}
    for path in SQL_FILES:
        lines = [line for line in path.read_text("utf-8").splitlines() if line[:2] != "--"]
        statement = " ".join(" ".join(lines).split())
        if "FOR UPDATE" in statement or "FOR NO KEY UPDATE" in statement:
            locking[path.stem] = statement
    assert set(locking) == set(ROW_LOCKS)
    for name, statement in locking.items():
        assert re.search(ROW_LOCKS[name] + "$", statement), name


def test_the_only_other_row_locks_are_of_distribution() -> None:
    asking = {
        f"{module}.{function.name}": function
        for module, tree in MODULES.items()
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if (isinstance(node, ast.keyword) and node.arg == "with_for_update")
        or (isinstance(node, ast.Attribute) and node.attr == "with_for_update")
    }
    assert set(asking) == ONE_ROW_LOCKED | MANY_ROWS_LOCKED
    for name in MANY_ROWS_LOCKED:
        assert calls_of(ast.Module([asking[name]], []), "order_by"), name
    for module, tree in MODULES.items():
        assert not any("FOR UPDATE" in text for text in texts_of(tree)), module


def test_nothing_rests_on_an_advisory_lock() -> None:
    # On a cluster each node has its own.
    assert not [path.name for path in SQL_FILES if "advisory" in _code(path.read_text("utf-8"))]


def _code(statement: str) -> str:
    return re.sub(r"--.*", "", statement)


def statements_of(module: str, tree: ast.Module) -> list[ast.Call]:
    """Return the calls of a module that name a statement's file."""
    if module == PREPARED:  # it is told the name
        return []
    prepared = [
        call
        for call in calls_of(tree, "written", "read")
        if isinstance(call.func, ast.Attribute)
        and isinstance(call.func.value, ast.Name)
        and call.func.value.id == "prepared"
    ]
    return [*calls_of(tree, "statement"), *prepared]


def test_every_statement_file_is_used_and_every_used_one_is_there() -> None:
    used: set[str] = set()
    for module, tree in MODULES.items():
        for call in statements_of(module, tree):
            assert layer_of(module) == "store", f"{module} runs a statement of the store"
            name = call.args[0]
            either = [name.body, name.orelse] if isinstance(name, ast.IfExp) else [name]
            for one in either:
                assert isinstance(one, ast.Constant), "a statement's name is a literal"
                used.add(one.value)
    assert used == {path.stem for path in SQL_FILES}


def public_parts(body: list[ast.stmt]) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """Give the public functions and classes of a module, and the methods of the latter."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public_parts(node.body)


@pytest.mark.parametrize("module", MODULES)
def test_whatever_is_public_is_documented(module: str) -> None:
    tree = MODULES[module]
    assert ast.get_docstring(tree), "the module"
    assert [part.name for part in public_parts(tree.body) if not ast.get_docstring(part)] == []


def test_functions_are_short() -> None:
    for module, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.end_lineno is not None:
                lines = node.end_lineno - node.lineno + 1
                assert lines <= FUNCTION_LINES_MAX, f"{module}.{node.name} has {lines} lines"


def test_no_module_is_called_after_nothing() -> None:
    for module in MODULES:
        assert not set(module.split(".")) & {"utils", "util", "helpers", "misc"}, module
