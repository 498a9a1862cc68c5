"""The bridge to nbgrader: scores in its gradebook, notebooks for grading by hand."""
