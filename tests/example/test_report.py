"""The card "A failure"."""


def test_background(visitor, tasks):
    """In the background the visitor sees a page that is fine, and the error is in the log."""
    tasks.capture()
    with tasks.expect_error(ZeroDivisionError):
        answer = visitor.press("/report", "background")

        before = visitor.read("report")
        tasks.run()

    card = visitor.read("report")

    assert answer.status_code == 303
    assert "The report is being made" in before
    assert "The page is fine." in card
    assert "ERROR asok.background: Background task monthly_report failed: ZeroDivisionError(" in card
    assert card.endswith("ZeroDivisionError: division by zero")
    assert "monthly_report failed" in visitor.read("tasks")


def test_blocking(visitor):
    """In the request the visitor gets an error page; the page itself goes on working."""
    answer = visitor.press("/report", "blocking")

    assert answer.status_code == 500
    assert "Internal Server Error" in answer.get_data(as_text=True)
    assert "The visitor got a 500." in visitor.read("report")
    assert visitor.figure("report", "blocking") >= 50


def test_error_of_somebody_else(app, visitor):
    """The card shows its own error, and no other that the log got meanwhile."""
    visitor.press("/report", "blocking")

    app.logger.error("The cellar is under water")

    assert "cellar" not in visitor.read("report")
    assert "ZeroDivisionError" in visitor.read("report")
