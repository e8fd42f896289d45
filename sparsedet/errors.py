"""The one exception that tools turn into one line and a non-zero exit."""


class InputError(ValueError):
    """Something that the user gave (a file, a key, an argument) cannot be used.

    The message is one line: it names the file or key, says what is wrong, and what to do.
    """
