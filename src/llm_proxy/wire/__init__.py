"""Bytes only: framing, guarded JSON, header hygiene, URLs, secrets and content encodings.

Nothing here has a socket, a clock, an ``await`` or a log line, and nothing here knows what a request or
an answer means. Whatever the peer got wrong is raised as one family of errors, ``faults.WireFault``.
"""
