"""What operators see of the tasks. Nothing here is imported by an application that has none of these tools."""
