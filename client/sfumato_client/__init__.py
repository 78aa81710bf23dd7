"""The site: reads, trains, anonymises, audits and releases inside the hospital."""

from sfumato_common import __version__ as __version__
