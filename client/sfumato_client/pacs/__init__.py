"""A hospital's images from its PACS, by DICOMweb, DIMSE or a gateway's folder; nothing is ever written to a PACS.

The one room of the site that speaks to the hospital's own network. It fills the folder `incoming` of the home, and
knows neither ledger nor store nor egress: what it fetched is read by an ingest, like any other folder.
"""
