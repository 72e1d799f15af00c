"""The record of a profile (`mvtool.profile/1`): what every operator of one artifact takes, and what follows from it."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from mvtool.ports import Document, Precision, Runtime

PROFILE_SCHEMA = "mvtool.profile/1"

LayerSource = Literal["weights", "state", "between", "unknown"]


class OperatorTime(Document):
    """One operator that was executed.

    Attributes:
        position: Place in the order of execution.
        type: Operator as the file names it, for example `DEPTHWISE_CONV_2D 3x3`.
        executed: What the runtime calls it; the same as `type` where it tells nothing.
        merged: Operators that were timed together, this one included.
        layer: Module of the PyTorch model it computes, None where that cannot be known.
        layer_from: How the layer was found. `weights`: its weights are that layer's. `state`: it reads or writes that module's state.
            `between`: the smallest module that holds all named operators around it.
        shapes: Of what is read and made.
        ms: Median time of one call.
        low_ms: Lower quartile.
        high_ms: Upper quartile.
        share: Of the sum of all operators.
        macs: Multiply-adds of one call; None for operators that do not multiply matrices.
        arithmetic: Precision whose peak it is compared with, where it has `macs`.
        peak_share: Its multiply-adds per second as part of the measured peak of that arithmetic.
        delegated: Whether the accelerated path runs it.
        reason: Why not.
    """

    position: int = Field(ge=0)
    type: str
    executed: str
    merged: int = Field(default=1, ge=1)
    layer: str | None = None
    layer_from: LayerSource = "unknown"
    shapes: str = ""
    ms: float
    low_ms: float
    high_ms: float
    share: float
    macs: int | None = None
    arithmetic: Precision | None = None
    peak_share: float | None = None
    delegated: bool = True
    reason: str | None = None


class Group(Document):
    """Operators that have something in common.

    Attributes:
        name: What they share.
        operators: Their number.
        ms: Sum of their times.
        share: Of the sum of all operators.
        macs: Sum of their multiply-adds.
    """

    name: str
    operators: int = Field(ge=1)
    ms: float
    share: float
    macs: int


class WorkTime(Document):
    """Time of one kind of work, `mvtool.profiling.kinds`.

    Attributes:
        kind: For example `1x1 convolution`; `between operators` is the latency that no operator accounts for.
        operators: Their number.
        ms: Sum of their times.
        outside_operators: How many of them no delegate takes.
        outside_ms: Sum of the times of those.
    """

    kind: str
    operators: int = Field(ge=0)
    ms: float
    outside_operators: int = Field(ge=0)
    outside_ms: float


class Latency(Document):
    """Calls without any profiling, between those that were profiled.

    Attributes:
        median_ms: Of all calls.
        low_ms: Lower quartile.
        high_ms: Upper quartile.
        calls: Number of calls.
    """

    median_ms: float = Field(gt=0)
    low_ms: float
    high_ms: float
    calls: int = Field(ge=1)


class Agreement(Document):
    """Whether the operators add up to what the model takes.

    Attributes:
        sum_ms: Sum of all operators.
        call_ms: A call of a program without operators; None where it was not measured and is part of the rest.
        rest_ms: Latency without profiling less the sum and the call: feeding, and what measuring changes.
        margin: Largest part of the latency that the rest may be, in either direction.
        holds: It is not larger.
    """

    sum_ms: float
    call_ms: float | None = None
    rest_ms: float
    margin: float
    holds: bool


class NextStep(Document):
    """What would save most, by one rule.

    Attributes:
        rule: Name of the rule.
        what: What to do, with the operators and layers it is about.
        gain_ms: Estimated saving of one call.
        estimate: How the saving was estimated.
        operators: Positions of the operators it is about.
    """

    rule: str
    what: str
    gain_ms: float
    estimate: str
    operators: tuple[int, ...]


class Profile(Document):
    """Profile of one file.

    Attributes:
        file: Name of the file; behind that of its folder where several have the same.
        of_build: It is an artifact of the build; else a file that was named beside or instead of one.
        sha256: Of the file.
        delegate_nodes: Parts of the graph that a delegate runs, each entered and left once per call; None for ExecuTorch.
        runtime: Runtime that executed it.
        precision: Of the artifact; of a file that is not the build's the arithmetic of most of its multiply-adds.
        method: `profiler`: the runtime's own times. `prefixes`: estimated from programs that were cut after ever more operators.
        resolution_us: Smallest time that the method tells apart from none; None for `prefixes`, whose quartiles say it.
        threads: Of the runtime.
        latency: Without profiling.
        agreement: Of both.
        peaks: Precision to measured multiply-adds per second.
        peaks_method: How they were measured; why not where there are none.
        operators: In order of execution.
        types: By type, longest first.
        layers: By layer, longest first; operators of no known layer are `unknown`.
        work: By kind of work, in the order of `mvtool.profiling.kinds.KINDS`.
        steps: At most three, the largest saving first.
        notes: What a reader should know, one sentence each.
    """

    file: str
    of_build: bool = True
    sha256: str | None = None
    delegate_nodes: int | None = None
    runtime: Runtime
    precision: Precision
    method: Literal["profiler", "prefixes"]
    resolution_us: float | None
    threads: int = Field(ge=1)
    latency: Latency
    agreement: Agreement
    peaks: dict[Precision, float] = Field(default_factory=dict)
    peaks_method: str
    operators: tuple[OperatorTime, ...]
    types: tuple[Group, ...]
    layers: tuple[Group, ...]
    work: tuple[WorkTime, ...] = ()
    steps: tuple[NextStep, ...]
    notes: tuple[str, ...] = ()


class Profiles(Document):
    """Profiles of artifacts of one build, and of other files that were named with it.

    Attributes:
        schema_id: Always `mvtool.profile/1`; the JSON key is `schema`.
        model: Name of the model; where no build was given, that of the first file without its suffix.
        device: Name of the processor.
        load: Load average of the machine when it began; None where the system does not tell.
        profiles: One per artifact.
        tools: Versions that took part.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_id: Literal["mvtool.profile/1"] = Field(default="mvtool.profile/1", alias="schema")
    model: str
    device: str
    load: float | None
    profiles: tuple[Profile, ...]
    tools: dict[str, str] = Field(default_factory=dict)
