"""The event engine: exact, event by event, in continuous time."""

from jaxsnn.event.events import Events
from jaxsnn.event.options import Event

__all__ = ["Event", "Events"]
