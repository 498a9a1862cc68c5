"""Where nbgrader finds this course: the folders of sources and releases, and what is not for students."""

from __future__ import annotations

import warnings

from traitlets.config import Config

with warnings.catch_warnings():  # nbgrader's dependencies announce removals that this kit cannot act on
    warnings.simplefilter("ignore")
    from nbgrader.coursedir import CourseDirectory

__all__ = ["course_settings"]

NOT_FOR_STUDENTS = ("*.py", "metrics.json")


def course_settings() -> Config:
    """Return nbgrader's settings of the course's folders; what is not named here is nbgrader's default."""
    settings = Config()
    settings.CourseDirectory.source_directory = "solutions"
    settings.CourseDirectory.release_directory = "labs"
    settings.CourseDirectory.ignore = [*CourseDirectory().ignore, *NOT_FOR_STUDENTS]
    return settings
