"""The application behind bridges from WSGI to ASGI."""

from a2wsgi import WSGIMiddleware
from asgiref.wsgi import WsgiToAsgi
from served import app

by_asgiref = WsgiToAsgi(app)
by_a2wsgi = WSGIMiddleware(app)
