"""Programs that run without trainkit, each with its preprocessing, its labels and a proof that it answers the same."""
