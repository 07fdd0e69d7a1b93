"""Where state is kept: small protocols and one file per engine. Nothing here knows what the values mean."""
