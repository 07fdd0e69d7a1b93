"""The chat language: what a person types after the prefix, and what it does. Knows no protocol and no socket."""
