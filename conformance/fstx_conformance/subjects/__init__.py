"""What is tested: kinds of storage under a strategy, each giving fresh empty places."""

from fstx_conformance.subjects.base import Process, Room, Subject
from fstx_conformance.subjects.urls import subject_of

__all__ = ["Process", "Room", "Subject", "subject_of"]
