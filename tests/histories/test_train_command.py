"""``embeddb train item2vec|als|gru4rec``, from an events table into the items' table."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, text

from embeddb.catalog.install import install
from embeddb.encoders.history import ALS, GRU4Rec, ItemVectors, histories
from embeddb.errors import SourceError
from embeddb.train.checkpoint import Checkpoint
from embeddb.train.events import EventsTable
from embeddb.vectors import from_text
from tests.histories.drifting_users import drifting_users

pytest.importorskip("gensim", reason="needs the extra embeddb[history]")
typer_testing = pytest.importorskip("typer.testing", reason="needs the extra embeddb[cli]")

ROWS = drifting_users(users=150, topics=8, items=10, length=16)
ITEMS = {item for _, item, _, _ in ROWS}


@pytest.fixture
def shop(engine18: Engine) -> Engine:
    """Items have keys of text; item 5000 nobody has had, but its content is that of item 0."""
    with engine18.begin() as connection:
        install(connection)
        for statement in (
            "CREATE TABLE items (sku text PRIMARY KEY, content vector(2), target vector(8), pooled vector(8))",
            "CREATE TABLE users (id int PRIMARY KEY, state vector(8))",
            "CREATE TABLE events (id int PRIMARY KEY, who int REFERENCES users, what text REFERENCES items,"
            " moment timestamptz, much numeric)",
        ):
            connection.execute(text(statement))
        connection.execute(text("INSERT INTO users (id) SELECT generate_series(0, 150)"))
        angles = [(f"sku {item}", f"[{np.cos(item / 40)},{np.sin(item / 40)}]") for item in [*sorted(ITEMS), 5000]]
        angles[-1] = ("sku 5000", angles[0][1])
        for sku, content in angles:
            connection.execute(text("INSERT INTO items (sku, content) VALUES (:sku, :c)"), {"sku": sku, "c": content})
        # In another order than that of their time.
        for number, (who, item, at, weight) in enumerate(reversed(ROWS)):
            values = {"id": number, "who": who, "what": f"sku {item}", "at": at, "much": weight}
            connection.execute(text("INSERT INTO events VALUES (:id, :who, :what, to_timestamp(:at), :much)"), values)
        connection.execute(text("INSERT INTO events VALUES (-1, NULL, 'sku 0', now(), 1), (-2, 1, 'sku 0', NULL, 1)"))
        # Of another model.
        connection.execute(text("UPDATE items SET target = '[1,0,0,0,0,0,0,0]' WHERE sku = 'sku 5000'"))
    return engine18


def train(shop: Engine, *arguments: str, error: bool = False) -> Any:
    from embeddb.cli.main import build

    url = shop.url.render_as_string(hide_password=False)
    given = ["train", *arguments, "--user", "who", "--item", "what", "--dim", "8", "-u", url]
    result = typer_testing.CliRunner().invoke(build(), given, env={"COLUMNS": "200"})
    assert error or result.exit_code == 0, (result.output, result.exception)
    return result


def stored(shop: Engine, column: str, table: str = "items", key: str = "sku") -> dict[Any, Any]:
    with shop.connect() as connection:
        rows = connection.execute(text(f"SELECT {key}, {column}::text FROM {table}")).all()
    return {row[0]: None if row[1] is None else from_text(row[1]) for row in rows}


def test_events_come_in_order_of_time_without_those_that_lack_something(shop: Engine) -> None:
    with shop.connect() as connection:
        events = EventsTable.of(connection, "public.events", "who", "what", "moment", "much")
        found = histories(events.rows(connection))
        expected = histories([(who, f"sku {item}", at, weight) for who, item, at, weight in ROWS])
        assert {who: [event.item for event in events] for who, events in found.items()} == {
            who: [event.item for event in events] for who, events in expected.items()
        }
        assert isinstance(next(iter(found)), int)
        with pytest.raises(SourceError, match="'events' has no column 'whose', only id, who, what"):
            EventsTable.of(connection, "events", "whose", "what")
        with pytest.raises(SourceError, match="no table 'event' of events"):
            EventsTable.of(connection, "event", "who", "what")


def test_item2vec_stores_both_sides(shop: Engine, tmp_path: Path) -> None:
    result = train(
        shop,
        "item2vec",
        "events",
        "--at",
        "moment",
        "--weight",
        "much",
        "--items",
        "items.target",
        "--pooled",
        "items.pooled",
        "--half-life",
        "2",
        "--epochs",
        "12",
        "-o",
        str(tmp_path / "m"),
    )
    rate, popular = (float(n) for n in re.findall(r"(?:items|alone): (\d\.\d+)", result.output))
    assert rate > 1.5 * popular > 0
    encoder = ItemVectors(str(tmp_path / "m"))
    for column, vectors in (("target", encoder.targets), ("pooled", encoder.pooled)):
        found = stored(shop, column)
        # What the model does not know has lost the vector of another model.
        assert found.pop("sku 5000") is None
        assert set(found) == set(encoder.items)
        np.testing.assert_allclose([found[item] for item in encoder.items], vectors, atol=1e-6)
    assert not (tmp_path / "m" / "leave-one-out").exists()
    with shop.connect() as connection:
        [config] = connection.scalars(text("SELECT config FROM embeddb.encoder"))
    assert config == {
        "type": "item2vec",
        "model": str(tmp_path / "m"),
        **{k: config[k] for k in config if k in ("half_life", "unit")},
    }
    assert config["half_life"] == 2 * 86_400


def test_one_column_holds_what_is_pooled_and_cold_items_get_their_neighbours(shop: Engine, tmp_path: Path) -> None:
    result = train(
        shop,
        "item2vec",
        "events",
        "--items",
        "items.target",
        "--content",
        "content",
        "--no-measure",
        "--epochs",
        "2",
        "-o",
        str(tmp_path / "m"),
    )
    assert "HR@10" not in result.output
    assert "1 of them by content" in result.output
    encoder = ItemVectors(str(tmp_path / "m"))
    found = stored(shop, "target")
    np.testing.assert_allclose([found[item] for item in encoder.items], encoder.pooled, atol=1e-6)
    angle = min(ITEMS) / 40
    near = sorted(ITEMS, key=lambda item: -np.cos(item / 40 - angle))[:10]
    np.testing.assert_allclose(found["sku 5000"], np.mean([found[f"sku {n}"] for n in near], 0), atol=1e-6)


def test_als_and_its_users(shop: Engine, tmp_path: Path) -> None:
    pytest.importorskip("implicit", reason="needs the extra embeddb[history]")
    train(
        shop,
        "als",
        "events",
        "--at",
        "moment",
        "--items",
        "items.target",
        "--users",
        "users.state",
        "--iterations",
        "3",
        "-o",
        str(tmp_path / "m"),
    )
    encoder = ALS(str(tmp_path / "m"))
    states = stored(shop, "state", "users", "id")
    assert states.pop(150) is None
    own = [[(f"sku {item}", at, weight) for who, item, at, weight in ROWS if who == user] for user in range(150)]
    np.testing.assert_allclose([states[user] for user in range(150)], encoder.encode_documents(own), atol=1e-5)


def test_gru4rec_goes_on_where_it_was_cut_off(shop: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = [
        "gru4rec",
        "events",
        "--at",
        "moment",
        "--items",
        "items.target",
        "--users",
        "users.state",
        "--hidden",
        "8",
        "--epochs",
        "3",
        "--no-measure",
    ]
    train(shop, *arguments, "-o", str(tmp_path / "whole"))
    epochs: list[int] = []
    save = Checkpoint.save

    def cut_off(self: Any, step: int, *state: Any) -> None:
        save(self, step, *state)
        epochs.append(step)
        if step == 2 and epochs.count(2) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "save", cut_off)
    assert train(shop, *arguments, "-o", str(tmp_path / "cut"), error=True).exit_code != 0
    train(shop, *arguments, "-o", str(tmp_path / "cut"))
    assert epochs == [1, 2, 3]
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == ["config.json", "model.safetensors"]
    whole, cut = GRU4Rec(str(tmp_path / "whole")), GRU4Rec(str(tmp_path / "cut"))
    np.testing.assert_allclose(whole.targets, cut.targets, atol=1e-6)
    # Trained on the same already: nothing is to be done.
    train(shop, *arguments, "-o", str(tmp_path / "cut"))
    assert epochs == [1, 2, 3]
    assert json.loads((tmp_path / "cut" / "config.json").read_text())["run"]["recipe"]["epochs"] == 3
    assert sum(vector is not None for vector in stored(shop, "state", "users", "id").values()) == 150


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--items", "items.vector"], "no column 'vector'.*of type vector.8."),
        (["--items", "items.content"], "items.content is of type VECTOR.dim=2.*vector.8., or another --dim"),
        (["--items", "items.target", "--pooled", "users.state"], "columns of one table"),
        (
            ["--items", "items.target", "--content", "sku"],
            "items.sku is of type TEXT.*: items' content is a column of v",
        ),
        (
            ["--items", "items.target", "--weight", "moment"],
            "events.moment is of type TIMESTAMP.*: a weight is a number",
        ),
        (["--items", "others.vector"], "events.what is of type INTEGER.*, and the key of others of UUID"),
    ],
)
def test_a_column_that_cannot_hold_the_vectors_is_refused(
    shop: Engine, tmp_path: Path, arguments: list[str], said: str
) -> None:
    with shop.begin() as connection:
        connection.execute(text("CREATE TABLE others (id uuid PRIMARY KEY, vector vector(8))"))
        if "others.vector" in arguments:
            connection.execute(
                text(
                    "ALTER TABLE events RENAME who TO was; ALTER TABLE events RENAME what TO who;"
                    " ALTER TABLE events RENAME was TO what"
                )
            )
    result = train(
        shop, "item2vec", "events", *arguments, "--no-measure", "--epochs", "1", "-o", str(tmp_path), error=True
    )
    assert re.search(said, str(result.exception))
    assert not list(tmp_path.iterdir())  # before anything was trained
