"""Run the workbook as a whole: the commands of `python -m labkit`, a module each.

Only the command line calls them; no notebook does. Each is imported when its command is given, so
that `doctor` can say which package is missing.
"""
