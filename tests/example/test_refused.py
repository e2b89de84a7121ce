"""The card "A refused payment"."""


def test_blocking(visitor):
    """In the request, the email is out before the order is rolled back: the card says so."""
    visitor.press("/refused", "blocking")

    assert "There is no order, but an email has gone out: Your order 1" in visitor.read("refused")


def test_background(visitor, tasks):
    """On threads the email goes out too, and the card says what would keep it here."""
    visitor.press("/refused", "background")
    tasks.wait(60)

    assert 'With when="commit" , or on PostgreSQL, it would have stayed here' in visitor.read("refused")
