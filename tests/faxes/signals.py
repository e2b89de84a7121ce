"""The signal of a fax; its sender is the application."""

from ...signals import namespace

fax_refused = namespace.signal("fax-refused")
