"""The plan of a launch (`mvtool.plan/1`): what the native runner is told, in lines of words.

A runner is a small C program, so the plan is no JSON. Names hold no blanks (port names are identifiers, files
are named by mvtool), sizes are bytes, positions are those of the artifact:

    mvtool.plan/1
    runtime tflite|executorch
    model FILE
    library FILE|-                     runtime library to open; - where it is linked into the runner
    result FILE                        written last, atomically
    threads N
    affinity HEXMASK                   optional
    weight_cache FILE                  optional: XNNPACK's packed weights, written by one launch and mapped by later ones
    keep_model_pages                   optional: the model's pages stay in memory after the weights are packed
    input POSITION NAME BYTES FILE COUNT      FILE holds COUNT stored arrays of BYTES, fed in turn
    state NAME IN_POSITION IN_NAME OUT_POSITION OUT_NAME BYTES element HEX
    state NAME IN_POSITION IN_NAME OUT_POSITION OUT_NAME BYTES file FILE
    ring NAME SLOTS NEWEST BYTES element HEX  a state in SLOTS ports of BYTES; or `file FILE`, with all slots
    slot POSITION NAME                 SLOTS of them after their ring, oldest first
    newest POSITION NAME               NEWEST of them, oldest first
    output POSITION NAME BYTES
    check STEPS FILE                   optional: reset, STEPS calls; outputs of each call, then all states
    warmup INVOKES SECONDS             at least, both; then the states are reset
    timed INVOKES SECONDS MAX_SECONDS  at least, both; ends in any case after MAX_SECONDS
    pace CALLS_PER_SECOND              optional
    mark CALLS                         any number, growing: memory is read after so many timed calls
    maps FILE                          optional: a copy of /proc/self/smaps after the last call
    end
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mvtool.ports import PortManifest, RingBinding, Runtime

PLAN_SCHEMA: Final = "mvtool.plan/1"
PLAN_FILE = "plan.txt"
WEIGHT_CACHE_FILE = "weights.xnnpack"
RESULT_FILE = "result.json"
CHECK_FILE = "check.bin"


@dataclass(frozen=True)
class InputFile:
    """Stored arrays of an input port that is no state.

    Attributes:
        file: Name in the run's folder.
        count: Arrays in it.
    """

    file: str
    count: int


@dataclass(frozen=True)
class Plan:
    """What one launch does.

    Attributes:
        ports: Port manifest of the artifact.
        model: Name of the artifact in the run's folder.
        library: Name of the runtime library there; None where it is linked into the runner.
        inputs: One per entry of `ports.inputs`.
        threads: Threads of the runtime.
        affinity: Hexadecimal mask of processors.
        check_steps: Calls whose outputs are dumped; 0 for none.
        warmup_invokes: Invokes before the timed part, at least.
        warmup_seconds: Seconds before the timed part, at least.
        min_invokes: Timed invokes, at least.
        min_seconds: Seconds of the timed part, at least.
        max_seconds: End of the timed part in any case.
        calls_per_second: Pace; None for flat out.
        result: Name of the result file.
        weight_cache: Name of the file of packed weights, with LiteRT; None for none.
        keep_model_pages: Do not let go of the model's pages once the weights are packed.
        marks: Numbers of timed calls after which memory is read, growing.
        maps: Name of the file that gets the mappings of the process after the last call; None for none.
    """

    ports: PortManifest
    model: str
    library: str | None
    inputs: tuple[InputFile, ...]
    threads: int = 1
    affinity: str | None = None
    check_steps: int = 0
    warmup_invokes: int = 0
    warmup_seconds: float = 0.0
    min_invokes: int = 1
    min_seconds: float = 0.0
    max_seconds: float = 3600.0
    calls_per_second: float | None = None
    result: str = RESULT_FILE
    weight_cache: str | None = None
    keep_model_pages: bool = False
    marks: tuple[int, ...] = ()
    maps: str | None = None

    def to_text(self) -> str:
        """The plan file; reset values that are not one repeated element are in `reset_files`."""
        lines = [PLAN_SCHEMA, f"runtime {self.ports.runtime}", f"model {self.model}", f"library {self.library or '-'}"]
        lines += [f"result {self.result}", f"threads {self.threads}"]
        lines += [f"affinity {self.affinity}"] if self.affinity else []
        lines += [f"weight_cache {self.weight_cache}"] if self.weight_cache else []
        lines += ["keep_model_pages"] if self.keep_model_pages else []
        for port, source in zip(self.ports.inputs, self.inputs, strict=True):
            lines.append(f"input {port.position} {port.name} {port.size_bytes} {source.file} {source.count}")
        for b in self.ports.states:
            value = f"element {b.reset.element_hex}" if b.reset.element_hex else f"file {reset_file(b.state)}"
            if isinstance(b, RingBinding):
                lines.append(f"ring {b.state} {len(b.inputs)} {len(b.outputs)} {b.inputs[0].size_bytes} {value}")
                lines += [f"slot {port.position} {port.name}" for port in b.inputs]
                lines += [f"newest {port.position} {port.name}" for port in b.outputs]
                continue
            ends = f"{b.input.position} {b.input.name} {b.output.position} {b.output.name} {b.input.size_bytes}"
            lines.append(f"state {b.state} {ends} {value}")
        lines += [f"output {port.position} {port.name} {port.size_bytes}" for port in self.ports.outputs]
        lines += [f"check {self.check_steps} {CHECK_FILE}"] if self.check_steps else []
        lines.append(f"warmup {self.warmup_invokes} {self.warmup_seconds:.6f}")
        lines.append(f"timed {self.min_invokes} {self.min_seconds:.6f} {self.max_seconds:.6f}")
        lines += [f"pace {self.calls_per_second:.9f}"] if self.calls_per_second else []
        lines += [f"mark {calls}" for calls in self.marks]
        lines += [f"maps {self.maps}"] if self.maps else []
        return "\n".join([*lines, "end", ""])

    def reset_files(self) -> dict[str, bytes]:
        """File name to bytes of the reset values that the plan names as files."""
        return {
            reset_file(b.state): b.reset.array(b.input).tobytes() for b in self.ports.states if not b.reset.element_hex
        }

    @property
    def check_bytes(self) -> int:
        """Size of a complete check file."""
        outputs = sum(port.size_bytes for port in self.ports.outputs)
        return self.check_steps * outputs + sum(b.output.size_bytes for b in self.ports.states)

    @property
    def runtime(self) -> Runtime:
        """Runtime of the artifact."""
        return self.ports.runtime


def reset_file(state: str) -> str:
    """Name of the file with the reset bytes of a state."""
    return f"reset_{state}.bin"
