"""The sites' nodes at the running SuperLink: registered at its start, and when a site is enrolled while it runs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing

from sfumato_server.coordinator.home import CoordinatorHome
from sfumato_server.enrol import Registry
from sfumato_server.rounds.superlink import Control

log = logging.getLogger(__name__)


class Nodes:
    """Node ids of one SuperLink, which `connect` reaches; kept in the home for the process of the rounds."""

    def __init__(self, home: CoordinatorHome, registry: Registry, connect: Callable[[], Control]) -> None:
        self._home, self._registry, self._connect = home, registry, connect
        self._ids: dict[str, int] = {}
        home.write_nodes({})

    def register(self, control: Control) -> None:
        """Register the enrolled sites of the plan as it stands, each once."""
        for site, key in sorted(self._new().items()):
            self._ids[site] = control.register(key, site)
        self._home.write_nodes(self._ids)

    def follow(self) -> None:
        """Register who was enrolled since; a SuperLink that does not answer is asked again the next time."""
        if not (new := self._new()):
            return
        try:
            with closing(self._connect()) as control:
                self.register(control)
        except Exception as error:
            # whatever it is, also Flower's own: a newcomer must not end the study of the others
            log.warning("site %s is not registered yet (%s)", ", ".join(sorted(new)), type(error).__name__)

    def _new(self) -> dict[str, bytes]:
        """Node keys of sites that are enrolled and in the plan, and not registered."""
        sites = self._home.plan().sites
        return {
            name: record.node_key.encode()
            for name, record in self._registry.sites().items()
            if name in sites and name not in self._ids and record.status == "enrolled"
        }
