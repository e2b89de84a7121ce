"""The catalogue of the shop: products that come in a CSV file, each visitor's own."""

from __future__ import annotations

import csv
import re
import sqlite3
import time
from pathlib import Path

from .db import get_db

BUNDLED = Path(__file__).with_name("products.csv")

COLUMNS = ["sku", "name", "price"]

MOST_ROWS = 500

COUNTS = 5
"""How many counts are kept."""

Row = tuple[str, str, str]


def read(path: str | Path) -> list[Row]:
    """Return the rows of a CSV file. ValueError says what is wrong with it, and in which row."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        try:
            header, *rows = csv.reader(file, strict=True)
        except (csv.Error, UnicodeDecodeError, ValueError):
            raise ValueError("This is not a CSV file in UTF-8.") from None
    if header != COLUMNS:
        raise ValueError(f"The first line must be {','.join(COLUMNS)}.")
    if not 1 <= len(rows) <= MOST_ROWS:
        raise ValueError(f"The file must have 1 to {MOST_ROWS} rows, not {len(rows):,}.")
    return [_checked(number, row) for number, row in enumerate(rows, 1)]


def save(visitor: str, row: Row) -> None:
    """Add a product, or replace the one with its SKU: a row that is imported twice does no harm."""
    get_db().execute(
        "INSERT INTO products (visitor, sku, name, price, imported_at) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (visitor, sku) DO UPDATE SET name = excluded.name, price = excluded.price, "
        "imported_at = excluded.imported_at",
        (visitor, *row, time.time()),
    )


def count(visitor: str) -> int:
    """Return how many products the visitor has."""
    found: int = get_db().execute("SELECT count(*) FROM products WHERE visitor = ?", (visitor,)).fetchone()[0]
    return found


def newest(visitor: str, most: int) -> list[sqlite3.Row]:
    """Return the products that the visitor imported last."""
    statement = "SELECT * FROM products WHERE visitor = ? ORDER BY imported_at DESC, rowid DESC LIMIT ?"
    return get_db().execute(statement, (visitor, most)).fetchall()


def note_count(tick: float, process: int) -> None:
    """Count the products of all visitors, and note for which tick and in which process; the last few are kept."""
    db = get_db()
    db.execute("INSERT INTO counts SELECT ?, ?, count(*) FROM products", (tick, process))
    db.execute("DELETE FROM counts WHERE rowid NOT IN (SELECT rowid FROM counts ORDER BY tick DESC LIMIT ?)", (COUNTS,))


def counts() -> list[sqlite3.Row]:
    """Return the last counts, the latest first."""
    return get_db().execute("SELECT tick, process, products FROM counts ORDER BY tick DESC").fetchall()


def _checked(number: int, row: list[str]) -> Row:
    if len(row) != len(COLUMNS):
        raise ValueError(f"Row {number} has {len(row)} columns, not {len(COLUMNS)}.")
    sku, name, price = (cell.strip() for cell in row)
    if not 1 <= len(sku) <= 40 or not 1 <= len(name) <= 80:
        raise ValueError(f"Row {number} needs a SKU of up to 40 characters and a name of up to 80.")
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,2})?", price):
        raise ValueError(f"The price in row {number} must be a number such as 12.50.")
    return sku, name, price
