"""Given encoders: frozen public networks that a plan names by file and sha256, and that every party holds itself.

Nothing of them depends on a patient of the study and nothing is fetched at run time, so that they cost no privacy.
"""
