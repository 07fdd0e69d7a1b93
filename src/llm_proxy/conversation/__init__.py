"""What a request and an answer are, independent of any wire protocol.

Pure data and pure functions: frozen `msgspec.Struct`s and tagged unions. Nothing here knows bytes on a wire, a
socket, a clock or a log. Dialects translate between these types and their protocol; features read and replace them.
"""
