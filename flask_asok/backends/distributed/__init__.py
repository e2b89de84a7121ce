"""What backends share whose tasks run in other processes, and whose truth is the store. START HERE: backend.py."""
