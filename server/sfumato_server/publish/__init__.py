"""Writers of the published data set, its manifest and its report."""
