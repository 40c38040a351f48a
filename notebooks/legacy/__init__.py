"""Parts of the service as the notebooks find them: they work, and each has a fault under load.

This file imports nothing, so that the workers of a process pool get to `legacy.transform` quickly.
"""
