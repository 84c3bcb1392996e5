"""The one exception that means: the user can mend this."""


class UserError(Exception):
    """A mistake in the input: its text is one line that names the file or field, and the mend."""
