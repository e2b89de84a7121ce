"""A store in the application's PostgreSQL. START HERE: store.py."""
