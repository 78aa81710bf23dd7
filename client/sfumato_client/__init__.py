"""The site: reads, trains, anonymises, audits and releases inside the hospital."""
