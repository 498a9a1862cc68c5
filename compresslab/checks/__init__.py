"""How an exercise is checked: its data, the call of an answer, the judge, and the proofs of the judge."""
