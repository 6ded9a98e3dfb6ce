"""Many files through one ``Segmenter``: which inputs there are, what is written of each, and which are done already."""

from renalseg.batch.inputs import Outcome, list_inputs
from renalseg.batch.results import MADE_FROM, Extras, Findings, write_result
from renalseg.batch.run import segment_all, segment_file

__all__ = ["MADE_FROM", "Extras", "Findings", "Outcome", "list_inputs", "segment_all", "segment_file", "write_result"]
