"""A local gateway between any client of language models and any provider."""

__version__ = "0.1.0"
