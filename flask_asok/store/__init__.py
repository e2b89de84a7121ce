"""What the processes of one application share: the records of tasks, unique keys, ticks, and which processes live."""
