"""Settings made from the text of a configuration file, as users write it."""

from tests.config.conftest import load, refuse

__all__ = ["load", "refuse"]
