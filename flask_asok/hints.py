"""What to add to an error of a task whose text, written for views, would mislead."""

from __future__ import annotations

from types import FrameType

from werkzeug.local import LocalProxy

_NO_REQUEST = ("Working outside of request context", "There is no request in this context")
"""How the text of Flask begins, up to 3.1 and from 3.2 on."""

_PASS_VALUES = (
    'A task has no request: pass the values that it needs, for instance request.form, session["user_id"] or '
    "str(get_locale())."
)
_PASS_ID = (
    "A proxy such as `current_user` stands for None in a task, which has no request: pass current_user.get_id(), and "
    "load the user in the task."
)


def explain(error: BaseException) -> None:
    """Add a note to an error that comes from asking, in a task, for what only a request has."""
    note = _note_on(error)
    if note is not None and note not in getattr(error, "__notes__", ()):
        error.add_note(note)


def _note_on(error: BaseException) -> str | None:
    # Of these very types: others may be of any kind, down to their text.
    if type(error) is RuntimeError:
        return _PASS_VALUES if str(error).startswith(_NO_REQUEST) else None
    if type(error) is not AttributeError or error.obj is not None or error.name is None:
        return None
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    # Of a None that a proxy stands for, not of any other.
    return _PASS_ID if last is not None and _asks_user(last.tb_frame) else None


def _asks_user(frame: FrameType) -> bool:
    names = frame.f_code.co_names
    return "current_user" in names or any(_is_to_none(frame.f_globals.get(name)) for name in names)


def _is_to_none(value: object) -> bool:
    if type(value) is not LocalProxy:
        return False
    try:
        return value._get_current_object() is None
    except Exception:  # it stands for nothing
        return False
