"""Five parts of the service, each with a fault where nobody looks."""
