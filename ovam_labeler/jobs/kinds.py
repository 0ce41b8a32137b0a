"""Kinds of jobs, apart from their handlers, so that queueing one need not import torch."""

from __future__ import annotations

LEARN = "learn"

#: A correction was retracted, or a class's learning goes on: the class is judged again by the corrections there are.
REVIEW = "review"

#: A picture is generated and handed to the labeling tool as a task.
GENERATE = "generate"
