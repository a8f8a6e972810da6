"""The event engine: exact, event by event, in continuous time."""

from jaxsnn.event.engine import Event
from jaxsnn.event.events import Events

__all__ = ["Event", "Events"]
