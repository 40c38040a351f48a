"""The orders service of notebook 06, repaired: the same modules, the same names, the same answers.

What differs from `orders_service` is what the five steps of the guide change, and nothing else.
"""
