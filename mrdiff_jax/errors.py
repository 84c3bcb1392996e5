"""The one exception that means: the user can fix this."""


class UserError(Exception):
    """A mistake in the input: its text is one line that names the file or field, and the fix."""
