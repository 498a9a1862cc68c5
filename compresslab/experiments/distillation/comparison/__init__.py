"""The comparison of lab 02 that is under way: two tasks, honest teachers, every method tuned alike."""
