"""What was found as HTML: one page a case with a viewer, one page a cohort. Nothing is loaded from outside."""

from renalseg.report.page.case import write_case_page
from renalseg.report.page.cohort import Entry, write_cohort_page
from renalseg.report.page.folder import write_report

__all__ = ["Entry", "write_case_page", "write_cohort_page", "write_report"]
