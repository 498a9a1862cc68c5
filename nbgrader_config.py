"""nbgrader for this course: its ``generate_assignment LAB`` makes what ``compresslab build`` makes."""

from compresslab.authoring.editions import nbgrader_settings

c = get_config()  # noqa: F821 (nbgrader provides it)
c.merge(nbgrader_settings())
