"""Configuration: options declared once, read from flags, environment, saved state and one file, with their
origin.

Rooms import `OptionGroup` and `option` to declare, `Settings.get` to read. Nothing here starts or contacts
anything.
"""

from llm_proxy.config.backends import BackendSettings
from llm_proxy.config.document import ConfigError
from llm_proxy.config.flags import build_parser
from llm_proxy.config.kinds import ModelDefaults, ModelLimits, NamedKey, RouteSettings
from llm_proxy.config.load import load_settings
from llm_proxy.config.model_defaults import model_defaults_for
from llm_proxy.config.options import ChatKey, Option, OptionGroup, option
from llm_proxy.config.settings import Saved, Settings

ProviderKey = NamedKey

__all__ = [
    "BackendSettings",
    "ChatKey",
    "ConfigError",
    "ModelDefaults",
    "ModelLimits",
    "NamedKey",
    "Option",
    "OptionGroup",
    "ProviderKey",
    "RouteSettings",
    "Saved",
    "Settings",
    "build_parser",
    "load_settings",
    "model_defaults_for",
    "option",
]
