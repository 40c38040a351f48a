"""The material of notebook 09: a service, and what can be hidden in it. Solve a case or two first.

`service` is what the modules of the service share. `blockers` and `decoys` are the functions that
a case is made of, `repairs` the blockers' good twins, and `deck` deals them out.
"""
