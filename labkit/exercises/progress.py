"""Which exercises there are, where they lie, and which are solved.

Each that was tried has a file of its name in the user's data directory; nothing is sent anywhere.
"""

from pathlib import Path

from labkit.errors import LabError

# A notebook may get another number: what is solved is recorded by the exercise's name.
CATALOGUE = {
    "00_start_here": ["stopwatch"],
    "01_detect_loop_blocking": ["report"],
    "02_set_up_the_pool": ["pool"],
    "03_acquire_per_task": ["acquire"],
    "04_move_cpu_work_off_the_loop": ["transform"],
    "05_bound_concurrency": ["gate"],
    "06_verify_under_load": ["verify"],
    "07_pitfalls": ["transaction"],
    "10_your_own_service": ["endpoint"],
}
EXERCISES = [name for names in CATALOGUE.values() for name in names]


def notebooks() -> Path:
    """The directory of the notebooks.

    Raises:
        LabError: labkit was installed without them.
    """
    path = Path(__file__).parents[2] / "notebooks"
    if not path.is_dir():
        raise LabError(
            "labkit was installed apart from its notebooks. Expected a checkout of the workbook: "
            "run `pip install -e .` in it."
        )
    return path


def place() -> Path:
    """The directory that keeps the progress, whether it is there or not; else a LabError."""
    import platformdirs  # here, so that who takes the probe home need not have them

    from labkit.server.home import directory

    return directory(platformdirs.user_data_dir) / "progress"


def read() -> dict[str, bool]:
    """For each exercise that was tried, whether it was solved; nothing if that cannot be read."""
    try:
        return {path.name: path.read_bytes() == b"solved" for path in place().iterdir()}
    except (OSError, LabError):
        return {}


def record(exercise: str, outcome: str) -> str:
    """Record the outcome of a check, if it was an attempt. Solved stays solved.

    Returns:
        What could not be done, in a sentence; as a rule, "".
    """
    try:
        file = place() / exercise
        if outcome != "not attempted":
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        if outcome == "pass":
            file.write_text("solved", "utf-8")
    except OSError as error:
        return f"(This was not recorded: {file} cannot be written: {error.strerror or error}.)"
    except LabError as error:
        return f"(This was not recorded. {error})"
    return ""


def solved() -> str:
    """How many exercises are solved, and which, in a sentence."""
    entries = read()
    done = [name for name in EXERCISES if entries.get(name)]
    which = f" ({', '.join(done)})" if done else ""
    return f"Solved so far: {len(done)} of {len(EXERCISES)}{which}."
