"""Tools that the notebooks measure with, which are not the lesson: read them only if you wonder."""
