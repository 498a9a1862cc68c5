"""Grade one notebook or a class: from the submitted file to the teacher's table, isolated.

The way of one submission from the inbox to its result:

1.  ``command:grade_inbox`` opens the bundle of the lab and a pool of processes (``jobs.executor``).
2.  ``submission.inbox:find_submissions`` finds one file per student, or a sentence why a person must look.
3.  ``grade_class:grade_class`` keeps results that are still valid and sends the others to the pool as tasks.
4.  ``class_task:grade_task`` takes, in a process of the pool, an open bundle with a worker.
5.  ``submission.cells:read_notebook`` parses the notebook's cells; none is run.
6.  ``submission.answers:read_submission`` finds what stands when each exercise's check runs, and the
    statements that it needs (``submission.slicing``).
7.  ``grade:grade_content`` draws each exercise's inputs from the secret seed of the file.
8.  ``sandbox.worker_client:WorkerClient.run`` sends the exercise to the worker, in a bubblewrap sandbox.
9.  ``sandbox.worker:main`` forks a child with fresh namespaces, limits and no privileges, which executes
    those statements, calls the student's function (``checks.call:run``) and leaves a record.
10. ``checks.judge:examine`` compares the record with the law of the exercise and its named mistakes, where
    no student's code is.
11. ``scores:write_results`` writes ``results.json``, after ``reports.feedback:feedback_html``.
12. ``reports.reports:write_reports`` writes the class's tables; ``nbgrader.gradebook:push_scores`` enters
    them into a gradebook, if one is given.
"""
