"""An orders service with one fault for each step of the guide. Its twin has none.

Read it module by module, beside `orders_service_repaired`. It is the service of notebooks 06 and
07; nothing in it knows that it is being measured.
"""
