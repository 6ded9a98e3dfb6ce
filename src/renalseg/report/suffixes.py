"""How the files of a case NAME end: NAME.nii.gz and so on. Named once, since several modules write or look for them."""

LABELS, RECORD, PICTURE = ".nii.gz", ".json", ".png"
MEASUREMENTS, PAGE = ".measurements.json", ".html"
DICOM_SEG, DICOM_SR = ".seg.dcm", ".sr.dcm"
