"""Steps that are left out because their loss or gradient is not finite: counted, told, and in the end too many."""

import logging
from typing import Any

from renalseg.core.errors import RenalsegError

log = logging.getLogger(__name__)

SKIPS = 5
"""So many in a row end a run; after fewer it goes on."""


def count_skip(stage: str, precision: str, progress: dict[str, Any], cases: str, warn: bool) -> None:
    """Counts a step that was left out, in ``progress``, where any other step sets ``skips_in_a_row`` back to 0.

    Raises:
        RenalsegError: it was the last of ``SKIPS`` in a row.
    """
    in_a_row = progress["skips_in_a_row"] = progress.get("skips_in_a_row", 0) + 1
    epoch = progress["epoch"] + 1
    if in_a_row >= SKIPS:
        what = f"the loss or gradient of {in_a_row} steps in a row is not finite, at last in epoch {epoch} with {cases}"
        raise not_finite(stage, precision, progress, what)
    if warn:
        log.warning(
            "%s: the loss or gradient of a step in epoch %d is not finite; it was left out, with %s",
            stage,
            epoch,
            cases,
        )


def not_finite(stage: str, precision: str, progress: dict[str, Any], what: str) -> RenalsegError:
    """The error that ends a run which cannot learn, with the way on: ``what`` happened, and with which cases."""
    again = "go on with --resume" if progress["epoch"] else "start again"
    if precision != "fp32":
        again += " --precision fp32" if progress["epoch"] else " with --precision fp32"
        return RenalsegError(f"{stage}: {what}; look at the images of these cases, and {again}")
    return RenalsegError(
        f"{stage}: {what}; look at the images of these cases, mend what is broken and {again}, or, if nothing is, "
        "train with a lower learning rate to another --out"
    )
