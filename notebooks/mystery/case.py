"""A case: its modules are written, run under load, and accusations judged by the measurements."""

from __future__ import annotations

import difflib
import inspect
from dataclasses import dataclass
from types import FunctionType, ModuleType

import labkit as lab
from labkit.measure import Scenario
from mystery.deck import Part, deal
from mystery.scenario import Steps, under_load
from mystery.writer import write

_THRESHOLD_MS = 25.0
_SECONDS = 2.5
_CULPRITS = 3


@dataclass(frozen=True, slots=True, repr=False)
class Finding:
    """What came of an accusation: whether it was right, and what the measurements say of it."""

    guilty: bool
    message: str

    def __repr__(self) -> str:
        """What a reader of the notebook sees below the accusation."""
        return f"{'✔' if self.guilty else '✘'} {self.message}"


class Case:
    """One case: a service of several modules, with three culprits hidden in it by the seed.

    Args:
        seed: Any whole number: each is a case of its own, and always the same one.
        dsn: Which PostgreSQL the service works on; `labkit.database()` if not given.

    Example:
        case = Case(7)
        look = case.measure()
        lab.stalls(look)
        case.accuse("pricing.quote")

    Attributes:
        seed: The same seed, the same case.
        modules: The service's modules by name, for `inspect.getsource`.
        functions: What can be accused, as "module.function".
    """

    def __init__(self, seed: int, dsn: str | None = None) -> None:
        if not isinstance(seed, int):
            raise lab.LabError(f"Case() was given seed={seed!r}. Expected a whole number: Case(7).")
        self.seed, self._dsn = seed, dsn or lab.database()
        parts, folder = deal(seed), f"mystery/case_{seed}"
        self._parts = {part.name: part for part in parts}
        self.modules: dict[str, ModuleType] = write(parts, folder)
        self._repaired: dict[str, ModuleType] = write(parts, f"{folder}/repaired", repaired=True)
        self.functions = [
            f"{name}.{function}"
            for name, module in self.modules.items()
            for function, found in vars(module).items()
            if isinstance(found, FunctionType) and found.__module__ == module.__name__
        ]
        self._looks: list[tuple[lab.Run, Steps]] = []
        self._findings: dict[str, Finding] = {}

    @property
    def scenario(self) -> Scenario:
        """The service under load, for `labkit.measure`. `Case.measure` keeps what it sees."""
        return self._under_load("the service", self.modules, {})

    @property
    def repaired(self) -> Scenario:
        """The same load on the repaired service.

        Raises:
            LabError: Somebody is still at large.
        """
        if missing := _CULPRITS - self._found:
            raise lab.LabError(
                f"{missing} of {_CULPRITS} culprits are still at large, and what was not found "
                f"cannot be repaired. Expected: measure(), and accuse() the right ones first."
            )
        return self._under_load("repaired", self._repaired, {})

    def measure(self, seconds: float = _SECONDS) -> lab.Run:
        """Run the service under load for some seconds, and keep what is seen as evidence.

        A stall is what holds the loop for 25 ms; for another limit, measure `scenario` yourself.
        """
        steps: Steps = {}
        name = f"case {self.seed}, look {len(self._looks) + 1}"
        scenario = self._under_load(name, self.modules, steps, seconds)
        run = lab.measure(scenario, threshold_ms=_THRESHOLD_MS)
        self._looks.append((run, steps))
        return run

    def accuse(self, name: str) -> Finding:
        """Name a culprit; the answer comes with the figures of your own measurements.

        Raises:
            LabError: There is no such function, or nothing was measured yet.
        """
        if name not in self.functions:
            raise lab.LabError(
                f"There is no function {name!r}. Expected one of: {', '.join(self.functions)}."
            )
        if not self._looks:
            raise lab.LabError(
                f"{name} is accused before anything was measured, so there is no evidence. "
                f"Expected `look = case.measure()` first, and then a look at its stalls and gauges."
            )
        part = self._parts[name.removesuffix("_part")]
        if part.name not in self._findings:
            guilty = bool(part.card.holds)
            self._findings[part.name] = Finding(guilty, "")  # counts for the score
            message = f"{'guilty' if guilty else 'innocent'}: {name} {self._evidence(part)}.\n"
            message += part.card.what + f"\n{self.score}" * guilty
            self._findings[part.name] = Finding(guilty, message)
        return self._findings[part.name]

    def owner(self, stall: lab.Stall) -> str | None:
        """Which function a stall is put down to, repaired or not: the innermost of the service's.

        None if it has no frame in the service.
        """
        both = [*self.modules.items(), *self._repaired.items()]
        files = {module.__file__: name for name, module in both}
        for frame in reversed(stall.stack):
            name = f"{files.get(frame.file)}.{frame.function}"
            if name in self.functions:
                return name.removesuffix("_part")
        return None

    @property
    def score(self) -> str:
        """How far you are, and how many looks (measurements and accusations) it took."""
        looks = len(self._looks) + len(self._findings)
        took = f"{looks} looks ({len(self._looks)} to measure, {len(self._findings)} to accuse)"
        if self._found < _CULPRITS:
            return f"Case {self.seed}: {self._found} of {_CULPRITS} culprits found, with {took}."
        return f"Case {self.seed} is solved, with {took}. The fewest possible are {_CULPRITS + 1}."

    def diff(self, name: str) -> None:
        """Show how a culprit that you have found is repaired.

        Raises:
            LabError: You have not found it.
        """
        finding = self._findings.get(name.removesuffix("_part"))
        if finding is None or not finding.guilty:
            raise lab.LabError(f"{name!r} was not found guilty. Expected a culprit that was.")
        module = name.partition(".")[0]
        broken, mended = (inspect.getsource(m[module]) for m in (self.modules, self._repaired))
        lines = difflib.unified_diff(broken.splitlines(), mended.splitlines(), lineterm="")
        lab.show("\n".join([f"{module}.py", *list(lines)[3:]]))

    def __repr__(self) -> str:
        """The brief."""
        return (
            f"Case {self.seed}: {len(self._parts)} kinds of request in {len(self.modules)} modules "
            f"({', '.join(self.modules)}). {_CULPRITS} of the functions are to blame. "
            f'measure(), then accuse("module.function").'
        )

    @property
    def _found(self) -> int:
        return sum(finding.guilty for finding in self._findings.values())

    def _under_load(
        self, name: str, modules: dict[str, ModuleType], steps: Steps, seconds: float = _SECONDS
    ) -> Scenario:
        scenario = under_load(self._dsn, [*self._parts.values()], modules, seconds, steps)
        scenario.__name__ = name
        return scenario

    def _evidence(self, part: Part) -> str:
        """What all the looks together say of one function."""
        stalls, calls, loop_ms, kept_ms, none_idle = list[lab.Stall](), 0, 0.0, 0.0, 0.0
        for run, steps in self._looks:
            mine = run.requests.index[run.requests.offer == part.name]
            calls += len(mine)
            stalls += [stall for stall in run.stalls if self.owner(stall) == part.name]
            # A step as long as a stall is in the stalls, and there it is known whose fault it was.
            loop_ms += sum(step for step in steps[part.name] if step < _THRESHOLD_MS)
            kept = run.spans[(run.spans.span == "connection") & run.spans.request.isin(mine)]
            kept_ms += kept.span_ms.sum()
            none_idle = max(none_idle, run.share_of_time("idle", lambda free: free == 0))
        loop_ms += sum(stall.duration_ms for stall in stalls)
        said = f"held the loop for {loop_ms:,.0f} ms, and connections for {kept_ms:,.0f} ms"
        said += f", in {calls:,} calls"
        if part.card.holds == "pool":
            said += f"; for {none_idle:.0%} of the time the pool had no connection left"
        elif part.card.holds and stalls:
            longest = max(stalls, key=lambda stall: stall.duration_ms)
            said += f"; stalls: {len(stalls)}, the longest {longest}"
        elif part.card.holds:
            said += "; a lucky guess, since no stall that you measured is its"
        return said
