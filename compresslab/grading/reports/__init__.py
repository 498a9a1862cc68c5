"""Reports of a graded submission or class: HTML, CSV and JUnit XML."""
