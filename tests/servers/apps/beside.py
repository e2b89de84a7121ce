"""A process of uWSGI beside the workers, a mule or the spooler, that runs the periodic tasks."""

import threading

import uwsgi
from periodic import app, asok

asok.start_periodic(app)
if uwsgi.mule_id():
    # It ends with its file, while a spooler goes on.
    threading.Event().wait()
