"""Configuration: options declared once, read from flags, environment, saved state and one file, with their
origin.

Rooms import `OptionGroup` and `option` to declare, `Settings.get` to read. Nothing here starts or contacts
anything.
"""

from llm_proxy.config.backends import BackendSettings
from llm_proxy.config.document import ConfigError
from llm_proxy.config.flags import build_parser
from llm_proxy.config.kinds import ModelLimits, NamedKey
from llm_proxy.config.load import Settings, load_settings
from llm_proxy.config.options import ChatKey, Option, OptionGroup, option

ProviderKey = NamedKey

__all__ = [
    "BackendSettings",
    "ChatKey",
    "ConfigError",
    "ModelLimits",
    "NamedKey",
    "Option",
    "OptionGroup",
    "ProviderKey",
    "Settings",
    "build_parser",
    "load_settings",
    "option",
]
