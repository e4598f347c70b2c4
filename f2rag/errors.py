"""Every error that f2rag raises on purpose.

The tree; each class also inherits the built-in that a caller would expect to catch::

    F2RagError
    ├── UnknownModelError            (ValueError)     the name of no checkpoint
    ├── ModelLoadError               (RuntimeError)   a checkpoint that cannot be used
    │   ├── ModelNotFoundError       (OSError)        not in the folder, the cache or on the hub
    │   ├── CorruptCheckpointError                    files that are there but damaged or incomplete
    │   ├── TokenizerError                            a tokenizer that would give wrong vectors
    │   └── DeviceError                               a device or dtype that this machine lacks
    ├── InputError                   (ValueError)     an argument or text that cannot be embedded
    │   ├── DimensionsError                           outside 1..native dimensions
    │   ├── InstructionError                          an unknown task, or an instruction a model cannot take
    │   ├── TextTypeError            (TypeError)      an item that is not a string
    │   └── OverlongTextError                         longer than max_length under on_overflow="error"
    ├── OutOfMemoryError             (RuntimeError)   one text alone does not fit on the device
    ├── EncoderClosedError           (RuntimeError)   used after close()
    ├── DocumentError                (ValueError)     a file or row that cannot be read as a document
    ├── SettingsError                (ValueError)     a wrong F2RAG_ variable or .env line
    ├── MissingExtraError            (ImportError)    an optional package that is not installed
    └── StoreError                   (RuntimeError)   a collection that cannot be used
        ├── CollectionNotFoundError  (LookupError)    no such collection
        ├── ContractMismatchError    (ValueError)     filled by another model or at another dimension
        ├── StoreLockedError                          another process has the folder open
        ├── StorePermissionError     (PermissionError) a folder that may not be written
        ├── StorageFullError         (OSError)        no space left
        ├── StoreUnavailableError    (ConnectionError) a server that does not answer, or not in time
        ├── StoreAccessError         (PermissionError) a key or token that the server refuses
        └── UnsupportedFeatureError  (NotImplementedError) what this home or this old server cannot do

A message has three parts: what was given, what was expected, what to do. Messages never hold secrets.
"""

from __future__ import annotations


class F2RagError(Exception):
    """Base of all errors that f2rag raises on purpose."""


class UnknownModelError(F2RagError, ValueError):
    """A model name that resolves to no F2LLM-v2 checkpoint and no local folder."""


class ModelLoadError(F2RagError, RuntimeError):
    """A checkpoint that was found but cannot be used."""


class ModelNotFoundError(ModelLoadError, OSError):
    """A checkpoint that is neither in the folder, nor in the cache, nor reachable on the hub."""


class CorruptCheckpointError(ModelLoadError):
    """Checkpoint files that are present but damaged, incomplete or of another architecture."""


class TokenizerError(ModelLoadError):
    """A tokenizer that would give wrong vectors, for example one that does not append the EOS token."""


class DeviceError(ModelLoadError):
    """A device or dtype that this machine does not have, or a device's process that ended or does not answer."""


class InputError(F2RagError, ValueError):
    """An argument or a text that cannot be embedded."""


class DimensionsError(InputError):
    """An output size outside 1..native dimensions."""


class InstructionError(InputError):
    """An unknown task name, or an instruction for a model that was trained without instructions."""


class TextTypeError(InputError, TypeError):
    """An item that is not a string; the message names its index."""


class OverlongTextError(InputError):
    """A text of more than ``max_length`` tokens while ``on_overflow="error"``."""


class OutOfMemoryError(F2RagError, RuntimeError):
    """A single text that does not fit into the device's memory, after every reduction of the batch."""


class EncoderClosedError(F2RagError, RuntimeError):
    """An encoder that is used after ``close()``."""


class DocumentError(F2RagError, ValueError):
    """A file or a row that cannot be read as a document."""


class SettingsError(F2RagError, ValueError):
    """A wrong ``F2RAG_`` environment variable or ``.env`` line."""


class MissingExtraError(F2RagError, ImportError):
    """An optional package that is not installed.

    Attributes:
        extra: The name of the f2rag extra that brings the package.
    """

    def __init__(self, package: str, *, extra: str) -> None:
        super().__init__(f"{package} is not installed. Install it with: pip install 'f2rag[{extra}]'")
        self.extra = extra


class StoreError(F2RagError, RuntimeError):
    """A collection or a storage folder that cannot be used."""


class CollectionNotFoundError(StoreError, LookupError):
    """A collection that does not exist in the store."""


class ContractMismatchError(StoreError, ValueError):
    """A collection whose vectors were made by another model, revision, dimension or document policy."""


class StoreLockedError(StoreError):
    """A storage folder that another process has open."""


class StorePermissionError(StoreError, PermissionError):
    """A storage folder that may not be read or written."""


class StorageFullError(StoreError, OSError):
    """A storage device without enough free space."""


class StoreUnavailableError(StoreError, ConnectionError):
    """A server that does not answer, or not in time, at any of its addresses."""


class StoreAccessError(StoreError, PermissionError):
    """A key or token that the server refuses, or that does not allow the call."""


class UnsupportedFeatureError(StoreError, NotImplementedError):
    """Something that the engine behind a collection cannot do; the message names the version that can."""
