"""Tasks that survive their process: written down at the call, and taken over where a process has left them."""
