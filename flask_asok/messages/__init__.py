"""What is sent to another process: a call, its function by name, its values as JSON, all of it signed."""
