"""The card "An import"."""

import io
import re
import threading

import pytest

import example_app
from example_app import catalogue


def csv_of(*rows, header="sku,name,price"):
    return io.BytesIO("\n".join([header, *rows]).encode()), "prices.csv"


@pytest.mark.parametrize("mode", ["blocking", "background"])
def test_bundled(visitor, tasks, mode):
    """Without a file of one's own the bundled one is imported, and the card shows the products."""
    visitor.press("/import", mode)
    tasks.wait(60)

    card = visitor.read("import")

    assert "240 products in the catalogue." in card
    assert ("Done 100 %" in card) == (mode == "background")
    assert visitor.figure("import", mode) > 0


def test_upload(visitor, tasks):
    """A file of one's own is imported; a row with a SKU that is there replaces it."""
    visitor.press("/import", "background", csv=csv_of("A1,Mug,9.50", "A2,<b>Lamp</b>,20", "A1,Large mug,11.00"))
    tasks.wait(60)

    card = visitor.read("import-outcome")

    assert "2 products in the catalogue. Imported last: Large mug 11.00 <b>Lamp</b> 20" in card


@pytest.mark.parametrize(
    ("upload", "why"),
    [
        (csv_of("A1,Mug,9.50", header="a,b"), "The first line must be sku,name,price."),
        ((io.BytesIO(b"sku,name,price\n\xff\xff\n"), "x.csv"), "This is not a CSV file in UTF-8."),
        ((io.BytesIO(b"\n"), "x.csv"), "The first line must be"),
        (csv_of(), "The file must have 1 to 500 rows, not 0."),
        (csv_of(*["A1,Mug,9.50"] * 501), "The file must have 1 to 500 rows, not 501."),
        (csv_of("A1,Mug,9.50", "A2,Lamp"), "Row 2 has 2 columns, not 3."),
        (csv_of("A1,Mug,nan"), "The price in row 1 must be a number such as 12.50."),
        (csv_of(f"A1,{'M' * 81},1"), "Row 1 needs a SKU of up to 40 characters"),
    ],
    ids=["header", "encoding", "blank", "no rows", "too many", "columns", "price", "name"],
)
def test_wrong_file(visitor, tasks, upload, why):
    """What is wrong with a file is told before anything is started."""
    upload[0].seek(0)

    visitor.press("/import", "background", csv=(io.BytesIO(upload[0].getvalue()), upload[1]))

    assert f"That did not work. {why}" in visitor.read("import-outcome")
    assert visitor.figure("import", "background") is None
    tasks.assert_not_called()


def test_empty_file(visitor, tasks):
    """A file without a byte in it is refused too."""
    visitor.press("/import", "background", csv=(io.BytesIO(b""), "empty.csv"))

    assert "This is not a CSV file" in visitor.read("import-outcome")
    tasks.assert_not_called()


@pytest.fixture
def gate(monkeypatch):
    """Hold every import at its second row, once it is written, until the gate is opened."""
    gate = threading.Event()
    gate.reached = threading.Event()
    save = catalogue.save

    def held(visitor, row):
        save(visitor, row)
        if row[0] == "A2":
            gate.reached.set()
            gate.wait(30)

    monkeypatch.setattr(catalogue, "save", held)
    yield gate
    gate.set()


ROWS = [f"A{number},Mug,1" for number in range(1, 6)]


def task_of(visitor):
    """Return the id of the task in the visitor's list."""
    return re.search(r'/dashboard/tasks/(\w+)">import_products<', visitor.client.get("/").text)[1]


def test_double_click(app, visitor, tasks, gate):
    """While an import of a visitor is under way, a second press follows it; that of another visitor does not."""
    other = type(visitor)(app)

    visitor.press("/import", "background", csv=csv_of(*ROWS))
    visitor.press("/import", "background", csv=csv_of(*ROWS))
    assert visitor.read("tasks").count("import_products") == 1
    other.press("/import", "background", csv=csv_of(*ROWS))
    assert other.read("tasks").count("import_products") == 1
    assert task_of(other) != task_of(visitor)

    gate.set()
    tasks.wait(60)
    assert "5 products in the catalogue" in visitor.read("import")
    assert "Done 100 %" in visitor.read("import-bar")


def test_cancel(visitor, tasks, gate):
    """The button on the card stops the import at its next row; what is written stays."""
    visitor.press("/import", "background", csv=csv_of(*ROWS))
    assert gate.reached.wait(30)
    page = visitor.client.get("/").get_data(as_text=True)
    action = page.partition('data-asok="cancel" method="post" action="')[2].partition('"')[0]
    token = page.partition('name="token" value="')[2].partition('"')[0]

    answer = visitor.client.post(action, data={"token": token})
    gate.set()
    tasks.wait(60)

    assert answer.status_code < 400
    assert "Cancelled" in visitor.read("import-bar")
    assert "2 products in the catalogue" in visitor.read("import")


def test_folder_of_the_release_before(app, tmp_path):
    """A folder that was made before this card was there gets its table."""
    with app.app_context():
        example_app.db.get_db().execute("DROP TABLE products")

    again = example_app.create_app({"EXAMPLE_FOLDER": app.config["EXAMPLE_FOLDER"]})
    with again.app_context():
        found = catalogue.count("anybody")
        posts = example_app.db.get_db().execute("SELECT count(*) FROM posts").fetchone()[0]
    example_app.close(again)

    assert (found, posts) == (0, len(example_app.db.POSTS))
