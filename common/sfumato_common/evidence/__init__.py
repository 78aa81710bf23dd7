"""What is shown of what was promised: certificates of runs, the one schema of all certificates, and the dossier."""
