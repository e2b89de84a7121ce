"""Places where calls are run, one file each; `ASOK_BACKEND` chooses."""
