"""The same five parts, repaired. They answer the same."""
