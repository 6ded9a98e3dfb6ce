"""The paper's protocol from end to end: train every fold, predict the cases that it left out, score them all.

::

    OUT/config.yaml inputs.json     what was begun here; another configuration or dataset is refused
    OUT/cache/                      the prepared cases, where no cache was given
    OUT/fold_K/                     the weights folder of fold K
    OUT/predictions/                CASE.nii.gz, .json, .png of every held-out case
    OUT/evaluation/                 metrics of all of them; in fold_K/ those of one fold
    OUT/crossval.md crossval.json   the table

The weights are those of the last epoch: no case that they are scored on chose them. Every file is written atomically
and what is finished is left alone, so an interrupted run, started again, goes on.
"""

from renalseg.crossval.plan import Plan, Reports
from renalseg.crossval.run import CrossValidation, cross_validate

__all__ = ["CrossValidation", "Plan", "Reports", "cross_validate"]
