"""The card "An order"."""


def test_blocking(visitor):
    """In the request, the page answers once all is done."""
    answer = visitor.press("/order", "blocking", product="Notebook", quantity=2)

    assert (answer.status_code, answer.location) == (303, "/#order")
    assert visitor.figure("order", "blocking") >= 100
    assert visitor.read("order").count(" after ") == 3


def test_background(visitor, tasks):
    """In the background, the page answers before anything is done, and shows it as it gets done."""
    tasks.capture()

    visitor.press("/order", "background", product="Notebook", quantity=2)

    assert visitor.figure("order", "background") > 0
    assert " after " not in visitor.read("order")
    assert "fulfil_order queued" in visitor.read("tasks")

    tasks.run()

    assert visitor.read("order").count(" after ") == 3
    assert "fulfil_order succeeded" in visitor.read("tasks")


def test_invoice(visitor, tasks):
    """The invoice that the task wrote can be read."""
    visitor.press("/order", "background", product="Desk lamp", quantity=3)
    tasks.wait(60)

    invoice = visitor.client.get("/invoices/1")

    assert invoice.get_data(as_text=True) == "Invoice 1\n\n3 x Desk lamp\n"
    invoice.close()


def test_both_modes_are_compared(app, visitor, tasks):
    """The figures of both modes stay on the card, for comparison."""
    # So long that no busy machine takes it to answer in the background.
    app.config["EXAMPLE_PAUSE"] = 1.0
    visitor.press("/order", "blocking", product="Notebook", quantity=1)
    visitor.press("/order", "background", product="Notebook", quantity=1)
    tasks.wait(60)

    assert visitor.figure("order", "background") < visitor.figure("order", "blocking")


def test_nonsense(visitor, tasks):
    """An order of what there is not is refused, and starts nothing."""
    assert visitor.press("/order", "background", product="<script>", quantity=1).status_code == 400
    assert visitor.press("/order", "background", product="Notebook", quantity="nan").status_code == 400
    assert visitor.press("/order", "background", product="Notebook", quantity="9" * 5000).status_code == 400
    tasks.assert_not_called()
