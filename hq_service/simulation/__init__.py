"""A fleet of simulated tills against a real service, and whether HQ and the tills agree at the end.

It knows the service by its answers only, and a till by the library of `hq_service.terminal`.
"""
