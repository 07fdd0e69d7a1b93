"""Whose conversation a request belongs to, and what is remembered of it."""
