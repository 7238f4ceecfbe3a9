"""Tracebacks for a log: where an error came from, without its words. What people raise may quote what they were given:
a card number, a token. A log is read by more people than a history, and is not sealed.
"""

from __future__ import annotations

from .errors import ConfigurationError, DefinitionError, StoreError, TinyWorkflowError, UnknownWorkflowError

KEPT_OUT = "its words are kept out of the log, for they may hold data"

_SPEAK_OF_CODE = (ConfigurationError, DefinitionError, StoreError, UnknownWorkflowError)
"""Ours, which speak of settings, code and the store alone."""


def told(error: BaseException) -> str:
    """The error's class, and its words where they are our own about settings, code or the store."""
    name = type(error).__name__
    return f"{name}: {error}" if isinstance(error, _SPEAK_OF_CODE) else name


def without_words(error: BaseException) -> BaseException:
    """A stand-in for `exc_info`: the same class name, the same frames, the same causes, and no words of strangers."""
    return _stand_in(error, set())


def _stand_in(error: BaseException, seen: set[int]) -> BaseException:
    seen.add(id(error))
    words = str(error) if isinstance(error, _SPEAK_OF_CODE) else KEPT_OUT
    cls = type(type(error).__name__, (TinyWorkflowError,), {"__module__": type(error).__module__})
    made: BaseException = cls(words).with_traceback(error.__traceback__)
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None and id(cause) not in seen:
        made.__cause__ = _stand_in(cause, seen)
    return made
