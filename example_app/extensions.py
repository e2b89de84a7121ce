"""Flask-Asok, made once; `create_app` sets it up on the application."""

from flask_asok import FlaskAsok

asok = FlaskAsok()
