"""From a model name to the calls that are made: reading the name, ordering attempts, keys at rest, what a
failure means.

Pure data and pure functions; the clock is injected and no call is made here. Knows conversations and the
Backend protocol; never a dialect, a socket or a client.
"""
