"""Histories in the catalog: what embeddb.histories shows, what embeddb verify finds."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import ProgrammingError
from typer.testing import CliRunner, Result

from embeddb.cli.main import build
from embeddb.orm.history import history_of, unregister_history, verify_history
from embeddb.orm.history_spec import HistorySpec
from tests.histories.shop import Customer, fill


@pytest.fixture
def shop(engine18: Engine) -> Engine:
    fill(engine18)
    return engine18


def verify(shop: Engine, *names: str) -> Result:
    url = shop.url.render_as_string(hide_password=False)
    return CliRunner().invoke(build(), ["verify", *names, "-u", url], env={"COLUMNS": "200"})


def shown(shop: Engine) -> list[tuple[object, ...]]:
    with shop.connect() as connection:
        rows = connection.execute(
            text("SELECT history, events::text, rows, embedded, dim, kept_up FROM embeddb.histories")
        )
        return [tuple(row) for row in rows]


def test_a_history_is_shown_with_its_counts(shop: Engine) -> None:
    assert shown(shop) == [("customers.taste", "orders", 6, 4, 8, True)]
    with shop.begin() as connection:
        connection.execute(text("ALTER TABLE orders DISABLE TRIGGER history_customers_taste_insert"))
    assert shown(shop) == [("customers.taste", "orders", 6, 4, 8, False)]
    url = shop.url.render_as_string(hide_password=False)
    result = CliRunner().invoke(build(), ["status", "-u", url], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert ["customers.taste", "6", "4", "off"] in [line.split() for line in result.output.splitlines()]


def test_verify_finds_what_changed_behind_the_triggers(shop: Engine) -> None:
    assert verify(shop).exit_code == 0
    with shop.begin() as connection:
        connection.execute(
            text("UPDATE customers SET taste = taste * array_fill(1.00001::real, ARRAY[8])::vector WHERE id = 2")
        )
        connection.execute(text("UPDATE customers SET taste = '[1,0,0,0,0,0,0,0]' WHERE id = 4"))
    for names in ((), ("customers.taste",)):
        found = verify(shop, *names)
        assert found.exit_code == 1
        assert [line for line in found.output.splitlines() if "customers" in line] == [
            f"customers.taste of {number}: its vector is not that of its events" for number in (2, 4)
        ]
    with shop.begin() as connection:
        connection.execute(text("UPDATE customers SET taste = NULL WHERE id = 4"))
        connection.execute(text("UPDATE customers SET taste = embeddb.history_customers_taste_compute(2) WHERE id = 2"))
    assert verify(shop).exit_code == 0


def test_verify_finds_a_history_that_nothing_keeps_up(shop: Engine) -> None:
    spec = history_of(Customer.taste).spec
    with shop.begin() as connection:
        connection.execute(text("ALTER TABLE orders DISABLE TRIGGER ALL"))
        assert verify_history(connection, spec) == [
            "its triggers or functions are gone, or switched off: register it again"
        ]
        connection.execute(
            text("DROP FUNCTION embeddb.history_customers_taste_compute, embeddb.history_customers_taste_add CASCADE")
        )
    assert "gone, or switched off" in verify(shop).output
    with shop.begin() as connection:
        unregister_history(connection, spec)
    assert shown(shop) == []
    assert verify(shop).exit_code == 0


def test_a_script_registers_what_a_model_declares(shop: Engine) -> None:
    """What a migration needs: the spec as JSON, and statements that need no model and no connection to be written."""
    spec = history_of(Customer.taste).spec
    assert HistorySpec.from_dict(spec.to_dict()) == spec
    with shop.begin() as connection:
        unregister_history(connection, spec)
        for statement in HistorySpec.from_dict(spec.to_dict()).register_statements():
            connection.exec_driver_sql(statement.replace("%", "%%"))
        assert verify_history(connection, spec) == []
        assert connection.exec_driver_sql(spec.rebuild_statement()).scalar() == 6
        [kept] = connection.scalars(text("SELECT spec FROM embeddb.history"))
        assert HistorySpec.from_dict(kept) == spec
        for statement in spec.unregister_statements():
            connection.exec_driver_sql(statement)
        assert connection.scalar(text("SELECT count(*) FROM embeddb.history")) == 0
    assert replace(spec, users_schema="shop").name == "shop.customers.taste"


def test_a_worker_may_verify_and_a_reader_may_look(shop: Engine) -> None:
    with shop.begin() as connection:
        for role, kind in (("hand", "worker"), ("eye", "reader")):
            connection.execute(text(f"CREATE ROLE {role}"))
            connection.execute(text(f"SELECT embeddb.grant_{kind}('{role}')"))
        connection.execute(text("UPDATE customers SET taste = NULL WHERE id = 1"))
        connection.execute(text("SET LOCAL ROLE hand"))
        assert connection.execute(text("SELECT key FROM embeddb.verify_histories()")).scalars().all() == ["1"]
        connection.execute(text("SET LOCAL ROLE eye"))
        assert connection.scalar(text("SELECT embedded FROM embeddb.histories")) == 3
        with pytest.raises(ProgrammingError, match="permission denied"), connection.begin_nested():
            connection.execute(text("SELECT embeddb.verify_histories()"))
        connection.execute(text("RESET ROLE"))
        connection.execute(text("DROP OWNED BY hand, eye"))
        connection.execute(text("DROP ROLE hand, eye"))
