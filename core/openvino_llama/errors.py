"""Every error that this project raises on purpose.

::

    OpenVINOLlamaError
    ├── ConfigError                 the registry, a setting or a plugin's configuration is wrong
    │   └── MissingFileError        a file that the registry names is not there
    ├── PluginError                 a plugin cannot be used
    ├── HookError                   a plugin's hook raised what it should not have
    ├── SourceError                 a model file cannot be fetched or verified
    ├── RequestError                the client's request is at fault
    │   ├── InvalidInputError       a field, parameter or body has a wrong value
    │   ├── ContextLengthError      a text has more tokens than the model can take
    │   ├── InvalidTensorError      a tensor does not fit its TensorSpec
    │   ├── InputTooLargeError      the body, or what it unpacks to, is over the limit
    │   ├── UnsupportedMediaTypeError
    │   └── NotAcceptableError
    ├── ModelError                  a model cannot do what was asked
    │   ├── ModelNotFoundError
    │   ├── ModelConflictError      the model is in the wrong state for this (loaded, loading, unloading)
    │   └── ModelLoadError
    ├── UnavailableError            try again later
    │   └── QueueFullError
    ├── DeadlineExceededError       the time of a request or of a guest's call is over
    ├── RequestCancelledError       the client has left
    └── SandboxError                the guest, or the inference it asked for, failed
        ├── InferenceError          the backend failed during compute
        ├── UnsupportedTargetError  the device that was asked for is not here
        ├── LimitError              more handles, memory or bytes than the limit
        └── GuestTrapError          the guest trapped: unreachable, stack overflow, out of bounds...

A message says who, which, what was expected and what came; it holds no path, no traceback and no text of a
library, because a server may show it to its clients. What an operator needs beyond that is in ``__cause__`` and
in the log. Nothing here knows of HTTP: ``server/problems.py`` maps these classes to statuses.
"""

from __future__ import annotations

__all__ = [
    "ConfigError",
    "ContextLengthError",
    "DeadlineExceededError",
    "GuestTrapError",
    "HookError",
    "InferenceError",
    "InputTooLargeError",
    "InvalidInputError",
    "InvalidTensorError",
    "LimitError",
    "MissingFileError",
    "ModelConflictError",
    "ModelError",
    "ModelLoadError",
    "ModelNotFoundError",
    "NotAcceptableError",
    "OpenVINOLlamaError",
    "PluginError",
    "QueueFullError",
    "RequestCancelledError",
    "RequestError",
    "SandboxError",
    "SourceError",
    "UnavailableError",
    "UnsupportedMediaTypeError",
    "UnsupportedTargetError",
]


class OpenVINOLlamaError(Exception):
    """Root of every error in this package."""


class ConfigError(OpenVINOLlamaError):
    """The registry, a setting or a model's configuration is wrong; the message names file, model and field."""


class MissingFileError(ConfigError):
    """A file that an entry names is not in the models folder: it has not been pulled, or never was there."""


class PluginError(OpenVINOLlamaError):
    """A plugin cannot be used; the message names its distribution."""


class HookError(OpenVINOLlamaError):
    """A plugin's hook raised something that is none of these errors; ``__cause__`` is what it raised."""


class SourceError(OpenVINOLlamaError):
    """A model file cannot be fetched or verified; nothing is left behind under its final name."""


class RequestError(OpenVINOLlamaError):
    """The client's request is at fault."""


class InvalidInputError(RequestError):
    """A field, a parameter or the body has a wrong value."""


class ContextLengthError(RequestError):
    """A text, or a text and what is to be generated after it, has more tokens than the model can take."""


class InvalidTensorError(RequestError):
    """A tensor does not fit its TensorSpec."""


class InputTooLargeError(RequestError):
    """The body, or what it unpacks to, is over the limit."""


class UnsupportedMediaTypeError(RequestError):
    """The body's media type, or its coding, is not one that the model type accepts.

    ``accepts`` lists the media types that are; ``codings`` the content codings.
    """

    def __init__(self, message: str, accepts: tuple[str, ...] = (), codings: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.accepts = accepts
        self.codings = codings


class NotAcceptableError(RequestError):
    """None of the media types in the request's Accept can be produced."""


class ModelError(OpenVINOLlamaError):
    """A model cannot do what was asked of it."""


class ModelNotFoundError(ModelError):
    """No model of that name is known."""


class ModelConflictError(ModelError):
    """The model is in the wrong state for this: already loaded, loading or unloading."""


class ModelLoadError(ModelError):
    """The model's files cannot be read, prepared or compiled."""


class UnavailableError(OpenVINOLlamaError):
    """Not now; ``retry_after`` is the time to wait in seconds."""

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class QueueFullError(UnavailableError):
    """As many requests are waiting for the model as its queue holds."""


class DeadlineExceededError(OpenVINOLlamaError):
    """The time that a request or a guest's call may take is over."""


class RequestCancelledError(OpenVINOLlamaError):
    """The client has left; nobody waits for the answer."""


class SandboxError(OpenVINOLlamaError):
    """The guest, or the inference that it asked for, failed."""


class InferenceError(SandboxError):
    """The backend failed during compute."""


class UnsupportedTargetError(SandboxError):
    """The device that was asked for is not available."""


class LimitError(SandboxError):
    """More handles, memory or bytes than the limit allows."""


class GuestTrapError(SandboxError):
    """The guest trapped: unreachable, stack overflow, access out of bounds."""
