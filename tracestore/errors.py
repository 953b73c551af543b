"""Every exception that tracestore raises on purpose.

TracestoreError                     exit  retryable
  BadInputError                       3     no
    ItemError                         3     no     a malformed or impossible input item
    QueryError                        3     no     an unknown query, a bad parameter, refused Cypher
      QueryTimeoutError               3     no     it took longer than it may
  UnsupportedModelError               4     no     the decomposition of this model does not close, or was never shown to
  ModelOutputError                    3     no     the model's own numbers are unusable (NaN or infinite logits)
  ResourceError                       1     no     not enough memory or disk: what to change is in the message
  StoreError                          5     no
    StoreUnavailableError             5     yes    cannot be reached or opened now
    StoreLockedError                  5     yes    another process holds it
    StoreVersionError                 5     no     written by another version: rebuild or migrate
  PartialSuccessError                 6     no     some items failed; the rest is done
  IntegrityError                      7     no
    ArchiveError                      7     no     a damaged, missing or newer package
    ConservationError                 7     no     an identity does not hold
    ShortCountError                   7     yes    fewer rows arrived than were sent
    MechanismShiftError               7     no     a candidate reaches the same answers by another mechanism

A message says what happened, to what, and what to do next. It never holds a prompt, a parameter or a secret.
"""

from __future__ import annotations

from typing import ClassVar


class TracestoreError(Exception):
    """Base of the tree: `exit_code` for the command line, `retryable` for callers."""

    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False


class BadInputError(TracestoreError):
    """What was given cannot be used."""

    exit_code = 3


class ItemError(BadInputError):
    """One input item is malformed or impossible; others are unaffected."""


class QueryError(BadInputError):
    """An unknown query, a missing or ill-typed parameter, or Cypher that is refused."""


class QueryTimeoutError(QueryError):
    """A query took longer than its limit."""


class ModelOutputError(BadInputError):
    """The model returned NaN or infinite logits: nothing can be attributed."""


class UnsupportedModelError(TracestoreError):
    """The architecture's decomposition does not close, or was never shown to close."""

    exit_code = 4


class ResourceError(TracestoreError):
    """Not enough memory or disk for what was asked."""


class StoreError(TracestoreError):
    """The graph store cannot be used."""

    exit_code = 5


class StoreUnavailableError(StoreError):
    """The store cannot be reached or opened now."""

    retryable = True


class StoreLockedError(StoreError):
    """Another process holds the store."""

    retryable = True


class StoreVersionError(StoreError):
    """The store was written by another engine or schema version."""


class PartialSuccessError(TracestoreError):
    """Some items failed and were reported; everything else is done."""

    exit_code = 6


class IntegrityError(TracestoreError):
    """Data are not what they were recorded to be."""

    exit_code = 7


class ArchiveError(IntegrityError):
    """An archive package is damaged, incomplete or of a newer schema."""


class ConservationError(IntegrityError):
    """An identity of the decomposition does not hold."""


class ShortCountError(IntegrityError):
    """Fewer rows arrived in the store than were sent."""

    retryable = True


class MechanismShiftError(IntegrityError):
    """A candidate gives the same answers as the baseline, but not in the same way."""
