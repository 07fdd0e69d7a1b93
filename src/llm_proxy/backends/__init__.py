"""Providers: what each row of the catalogue is, how a call is made, and which instances exist.

This is where sockets are. Knows dialects by name and their data; never a client, a session or a feature.
"""
