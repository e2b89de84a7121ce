"""The blueprint of all views."""

from flask import Blueprint

bp = Blueprint("example", __name__)
