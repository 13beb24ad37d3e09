"""The base of all errors whose message is meant for the person who runs the workflow."""


class PrefdeltaError(Exception):
    """Bad input or a broken environment: the message says what is wrong, where, and what to do."""


class ConfigError(PrefdeltaError):
    """The configuration, or a name in a request, is wrong: the message names it and the choices."""
