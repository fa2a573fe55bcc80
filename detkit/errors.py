"""Errors that a user can mend.

A message says what, where, found and remedy, on one line where it can:
``train.json: annotation 17: width is -3; fix the box or run tools/check_data.py --fix``.
The tools print such an error without a traceback and exit with status 2.
"""


class DetkitError(Exception):
    """The base of every error that detkit raises for a user's mistake."""


class ConfigError(DetkitError):
    """A configuration that cannot be run: an unknown key, a wrong type, an impossible value."""


class DataError(DetkitError):
    """Annotations, images or results that cannot be used as they are."""


class WeightsError(DetkitError):
    """A weights file or checkpoint that cannot be loaded, or does not fit the model."""


class TrainingError(DetkitError):
    """Training cannot go on: a loss that is not finite, or a run that cannot be resumed."""
