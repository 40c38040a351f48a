"""`python -m labkit status`: which exercises are solved."""

from labkit.exercises import progress


def status() -> None:
    """Print what became of each exercise of each notebook."""
    entries, states = progress.read(), {True: "✔ solved", False: "tried", None: "untouched"}
    for notebook, names in progress.CATALOGUE.items():
        for name in names:
            print(f"{notebook:<32} {name:<12} {states[entries.get(name)]}")
    print(progress.solved(progress.EXERCISES))
    print(f"This is kept in {progress.place()}, and sent nowhere.")
