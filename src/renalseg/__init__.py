"""renalseg: kidneys, renal tumors and cysts in abdominal CT. Research use only, not a medical device."""

__version__ = "0.1.0"
